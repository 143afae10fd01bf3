"""The model that reads pages: a stock LLaVA of 4 million parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..demo.model import llava_config, load_folder
from .paper import PAGE_SIZE

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

TEXT_LAYERS = 8


def config() -> LlavaConfig:
    """The demonstration model's tower for 400 patches, and a decoder of 8 layers."""
    from ..demo.vocabulary import BOS, EOS, IMAGE, PAD
    from .vocabulary import IDS

    return llava_config(PAGE_SIZE, TEXT_LAYERS, len(IDS), IDS[IMAGE], IDS[PAD], IDS[BOS], IDS[EOS])


def processor() -> LlavaProcessor:
    """Stock LlavaProcessor for pages of 160 x 160 pixels."""
    from ..demo import vocabulary as demo
    from .vocabulary import tokenizer

    return demo.processor(PAGE_SIZE, tokenizer())


def load(path: str | Path | None = None) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Load the model for pages, which comes with a clone of the repository (a wheel has not the room for it).

    It answers questions about drawn receipts, tables, forms, plots and screens, and knows nothing else.

    Args:
        path: the folder of another copy of it; None for the one of the clone.

    Returns:
        The model, in float32, on the CPU and in eval mode, and its processor.

    Raises:
        DuetError: there is no such folder, or its files are not those of a model.

    Example:
        >>> from duet_vlm.pages.model import load
        >>> model, processor = load()
        >>> model.config.image_seq_length, len(model.model.language_model.layers)
        (400, 8)
    """
    from ..inputs.model_folders import PAGES_FOLDER

    return load_folder(PAGES_FOLDER if path is None else path)
