"""How a model's own image processor lays an image of a given size out: patches, tiles or crops."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DuetError, reason
from ..families import family_of
from .model_folders import existing, reading
from .shapes import shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin


@dataclass(frozen=True)
class Layout:
    """What `families.image_shape.ImageShape.of` needs to know of an image; nothing where all are alike.

    Attributes:
        grid: rows and columns of patches, for models whose images differ.
        tiles: how many tiles it is cut into, for models that cut.
        size: (height, width) in pixels, for models of AnyRes, whose crops depend on it.
    """

    grid: tuple[int, int] | None = None
    tiles: int | None = None
    size: tuple[int, int] | None = None


def layout(
    config: PreTrainedConfig,
    model: str | None,
    shape: str | None,
    pixels: tuple[int, int] | None,
    grid: tuple[int, int] | None = None,
    tiles: int | None = None,
) -> Layout:
    """The layout that a command's `--image`, `--grid` and `--tiles` ask for.

    A blank image of that size goes through the stock image processor: that of the model's folder or hub id, or the
    one that the checkpoint of a published shape names.

    Args:
        config: the model's transformers config.
        model, shape: which of them the config is of.
        pixels: (width, height), as people write sizes.
        grid, tiles: given instead.

    Raises:
        DuetError: `pixels` and one of the others, or an image that the processor refuses.
    """
    if pixels is None:
        return Layout(grid, tiles)
    width, height = pixels
    for name, value in (("--grid", grid), ("--tiles", tiles)):
        if value is not None:
            raise DuetError(f"--image {width}x{height} says what {name} says: give one of them.")
    family = family_of(config)
    if family.cut_by_size:
        return Layout(size=(height, width))
    if not family.tiled and family.usual_grid(config) is None:
        return Layout()  # every image is made the same size
    encoded = _encoded(config, _processor(model, shape), pixels)
    if (found := family.grid_of(config, encoded)) is not None:
        _, rows, columns = found
        return Layout(grid=(rows, columns))
    crops = family.crops_in(encoded)
    return Layout(tiles=None if crops is None else len(crops))


def _processor(model: str | None, shape: str | None) -> Any:
    from transformers import AutoImageProcessor

    if model is not None:
        source = existing(model)
        return reading(model, lambda: AutoImageProcessor.from_pretrained(source))
    assert shape is not None
    settings = shape_of(shape).processor
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
        try:
            return AutoImageProcessor.from_pretrained(folder)
        except (ImportError, ValueError) as error:
            raise DuetError(
                f"{settings['image_processor_type']}, which lays out images of {shape}, cannot be loaded here: install "
                "torchvision, or give --grid or --tiles in the place of --image."
            ) from error


def _encoded(config: PreTrainedConfig, processor: ProcessorMixin, pixels: tuple[int, int]) -> Any:
    from PIL import Image

    try:
        return processor(images=[Image.new("RGB", pixels)], return_tensors="pt", **family_of(config).layout_options)
    except ValueError as error:
        raise DuetError(
            f"an image of {pixels[0]}x{pixels[1]} pixels cannot be laid out ({reason(error)}): give another size."
        ) from error
