"""The model that is measured, as a folder that vLLM reads, and the prompt that every request has."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...families.image_shape import ImageShape
from ...families.random_images import usual_grid
from ...inputs.model_folders import DEMO, DEMO_FOLDER, existing
from .shape_folder import QUESTION, write_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Source:
    """Where vLLM finds the model.

    Attributes:
        folder: a folder or hub id.
        arguments: what vLLM needs to be told to read it.
    """

    folder: str
    arguments: dict[str, Any] = field(default_factory=dict)


@contextmanager
def source(model: str | None, config: PreTrainedConfig, shape: str | None, layers: int | None) -> Iterator[Source]:
    """The model for vLLM; what has to be written for it is gone afterwards.

    A shape is its config, a processor and a tokenizer, and vLLM draws the weights. The demonstration model is copied
    with the tower's weights under the names that vLLM knows; transformers saves them shorter since 5.23.

    Args:
        model: as `--model` names it; None with a shape.
        config: the model's or the shape's, whole.
        shape: as `--shape` names it.
        layers: with a shape, fewer decoder layers.
    """
    if shape is None and model != DEMO:
        yield Source(existing(model or ""))
        return
    with tempfile.TemporaryDirectory(prefix="duet-bench-") as name:
        folder = Path(name)
        if shape is None:
            _copy_demo(folder)
            # its pictures are resized by a filter that torchvision lacks
            yield Source(name, {"mm_processor_kwargs": {"backend": "pil"}})
            return
        write_shape(folder, config, shape, layers)
        yield Source(name, {"load_format": "dummy"})


def _copy_demo(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    existing(DEMO)
    for file in DEMO_FOLDER.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copy(file, folder)
    name = "model.safetensors"
    weights = load_file(DEMO_FOLDER / name)
    renamed = {key.replace("vision_tower.", "vision_tower.vision_model.", 1): x for key, x in weights.items()}
    save_file(renamed, folder / name, metadata={"format": "pt"})


def prompt_of(config: PreTrainedConfig, folder: str, text_tokens: int) -> list[int]:
    """The ids of a prompt: a few words, an image's placeholder, and words of a question, again and again.

    Args:
        config: the model's.
        folder: where its tokenizer is.
        text_tokens: how many ids there are beside the placeholder.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    frame = [getattr(config, f"vision_{name}_token_id", None) for name in ("start", "end")]
    around = [[] if token is None else [token] for token in frame]
    words = list(islice(cycle(asked), text_tokens - sum(map(len, around))))
    if tokenizer.bos_token_id is not None:
        words[0] = tokenizer.bos_token_id
    before = min(5, len(words) // 4)
    return [*words[:before], *around[0], config.image_token_id, *around[1], *words[before:]]


def image_of(
    config: PreTrainedConfig, grid: tuple[int, ...] | None, size: tuple[int, int] | None
) -> tuple[ImageShape, tuple[int, int]]:
    """The image of a prompt as the language model gets it, and its (width, height) in pixels.

    Args:
        config: the model's.
        grid: rows and columns of patches where images differ; the usual ones if None.
        size: (height, width) in pixels, of AnyRes models.
    """
    grid = usual_grid(config) if grid is None else grid
    vision = config.vision_config
    if grid is None:
        side = vision.image_size
        return ImageShape.of(config, grid, None, size), (side, side)
    rows, columns = grid[-2:]
    return ImageShape.of(config, grid), (columns * vision.patch_size, rows * vision.patch_size)
