"""AnyRes: an image is cut into a grid of crops, the one of `image_grid_pinpoints` that suits it, and seen whole too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import DuetError
from ..host import tiles_of
from .family import Family
from .image_shape import ImageShape, largest_grid

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class AnyRes(Family):
    """What LLaVA-NeXT and LLaVA-OneVision share. Rows of packed patches end with `image_newline`, a parameter."""

    projectors: tuple[str, ...] = ("multi_modal_projector", "image_newline")
    cut_by_size = True
    tiles_advice = ", and an image of its largest grid of crops is counted as a whole"

    def image_shape(
        self,
        config: PreTrainedConfig,
        grid: tuple[int, ...] | None = None,
        tiles: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> ImageShape:
        """The base crop, and the tiles without padding, a token at the end of each row of patches."""
        if grid is not None or tiles is not None:
            return super().image_shape(config, grid, tiles)
        size = largest_grid(config) if size is None else size
        crops, rows, columns = tiles_of(config, size)
        if self.dynamic:  # merged as a whole
            patches, ends = self.tokens_of_grid(config, (rows, columns)), self.row_ends(config, (rows, columns))
            return ImageShape(patches + ends, 1 + crops, patches, dynamic=True, row_ends=ends, size=size)
        patches = self.visual_tokens(config)
        return ImageShape(patches + rows * (columns + 1), 1 + crops, patches, unit="crop", row_ends=rows, size=size)

    def packed_sizes(self, inputs: Mapping[str, Any]) -> Tensor | None:
        found: Tensor | None = inputs.get("image_sizes")
        return found

    def pixels(
        self, config: PreTrainedConfig, make: Callable[[tuple[int, ...]], Tensor], count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Make pixels of images of a size in pixels."""
        if size is None:
            raise DuetError(f"images of a {config.model_type} are timed by their pixels: give --image, no grid=.")
        return self.crops(config, make, count, size)

    def blank_image(self, config: PreTrainedConfig) -> dict[str, Tensor]:
        """Make a blank image of the smallest grid of crops."""
        smallest = min(config.image_grid_pinpoints, key=lambda size: size[0] * size[1])
        return self.crops(config, torch.ones, 1, tuple(smallest))

    def crops(
        self, config: PreTrainedConfig, make: Callable[[tuple[int, ...]], Tensor], count: int, size: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """`count` images of this (height, width) in pixels: (count, crops, 3, side, side), the base crop first."""
        channels, height, width = self.crop_size(config)
        crops = 1 + tiles_of(config, (size[0], size[1]))[0]
        pixels = make((count, crops, channels, height, width))
        return {"pixel_values": pixels, "image_sizes": torch.tensor([list(size)] * count)}
