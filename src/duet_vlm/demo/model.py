"""The demonstration model: a stock LLaVA of a few million parameters, shipped inside the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from duet_vlm.demo.scenes import GRID, IMAGE_SIZE, PATCH_SIZE
from duet_vlm.errors import DuetError, shown

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

VISION_WIDTH, VISION_LAYERS = 128, 6
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS, TEXT_MLP = 160, 12, 5, 432
VISUAL_TOKENS = GRID * GRID


def config() -> LlavaConfig:
    """A CLIP tower of 6 layers (features from the last but one, without CLS) and a Llama decoder of 12 layers."""
    from duet_vlm.demo.vocabulary import BOS, EOS, IDS, IMAGE, PAD

    return llava_config(IMAGE_SIZE, TEXT_LAYERS, len(IDS), IDS[IMAGE], IDS[PAD], IDS[BOS], IDS[EOS])


def llava_config(side: int, layers: int, vocabulary: int, image: int, pad: int, bos: int, eos: int) -> LlavaConfig:
    """The configuration of a tiny LLaVA: patches of 8 x 8 pixels, and the widths of this file.

    Args:
        side: of an image, in pixels.
        layers: of the decoder.
        vocabulary: how many tokens there are.
        image, pad, bos, eos: ids of the special tokens.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=VISION_WIDTH, intermediate_size=4 * VISION_WIDTH, num_hidden_layers=VISION_LAYERS,
        num_attention_heads=4, image_size=side, patch_size=PATCH_SIZE, projection_dim=64, hidden_act="gelu",
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=vocabulary, hidden_size=TEXT_WIDTH, intermediate_size=TEXT_MLP, num_hidden_layers=layers,
        num_attention_heads=TEXT_HEADS, num_key_value_heads=TEXT_HEADS, max_position_embeddings=1024,
        pad_token_id=pad, bos_token_id=bos, eos_token_id=eos, tie_word_embeddings=False,
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=image, vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_seq_length=(side // PATCH_SIZE) ** 2,
        projector_hidden_act="gelu", tie_word_embeddings=False,
    )  # type: ignore[call-arg]  # fmt: skip


def folder() -> Path:
    """The folder with the shipped weights, configuration, tokenizer and processor (a normal from_pretrained folder)."""
    from ..inputs.model_folders import DEMO_FOLDER

    return DEMO_FOLDER


def load(path: str | Path | None = None) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Load the demonstration model, which ships with the package: no download.

    It is a stock LLaVA of 5 million parameters that answers questions about drawn scenes, in about 110 words; it knows
    nothing else.

    Args:
        path: the folder of another copy of it; None for the one that ships.

    Returns:
        The model, in float32, on the CPU and in eval mode, and its processor.

    Raises:
        DuetError: there is no such folder, or its files are not those of a model.

    Example:
        >>> from duet_vlm.demo.model import load
        >>> model, processor = load()
        >>> type(model).__name__, len(model.model.language_model.layers)
        ('LlavaForConditionalGeneration', 12)
    """
    if path is not None and not isinstance(path, (str, Path)):
        raise DuetError(f"path {shown(path)} must be the folder of a model, as a text or a Path.")
    return load_folder(folder() if path is None else path)


def load_folder(path: str | Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A tiny LLaVA of this package and its processor, from a folder."""
    if not Path(path).is_dir():
        raise DuetError(f"model {str(path)!r} is no folder: give that of a trained copy.")
    from ..inputs.checkpoints import read_model

    model, processor = read_model(str(path), "float32", "cpu")
    return model, processor
