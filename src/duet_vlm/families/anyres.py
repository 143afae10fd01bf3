"""AnyRes: an image is cut into a grid of crops, the one of `image_grid_pinpoints` that suits it, and seen whole too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import DuetError
from .family import Family
from .image_shape import largest_grid, largest_tiles


class AnyRes(Family):
    """What LLaVA-NeXT and LLaVA-OneVision share. Rows of packed patches end with `image_newline`, a parameter."""

    projectors = ("multi_modal_projector", "image_newline")
    tiles_advice = ", and an image of its largest grid of crops is counted as a whole"

    def largest_patches(self, config: Any) -> tuple[int, int]:
        rows, columns, in_row = largest_tiles(config)
        return rows * in_row, columns * in_row

    def pixels(
        self, config: Any, make: Callable[[tuple[int, ...]], Tensor], count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Of images of the largest grid of crops."""
        if grid is not None:
            raise DuetError(f"images of a {config.model_type} are timed at its largest grid of crops: leave grid= out.")
        return self.crops(config, make, count, largest_grid(config))

    def blank_image(self, config: Any) -> dict[str, Tensor]:
        """Of the smallest grid of crops."""
        smallest = min(config.image_grid_pinpoints, key=lambda size: size[0] * size[1])
        return self.crops(config, torch.ones, 1, tuple(smallest))

    def crops(
        self, config: Any, make: Callable[[tuple[int, ...]], Tensor], count: int, size: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """`count` images of this (height, width) in pixels: (count, crops, 3, side, side), the base crop first."""
        channels, height, width = self.crop_size(config)
        crops = 1 + (size[0] // height) * (size[1] // width)
        pixels = make((count, crops, channels, height, width))
        return {"pixel_values": pixels, "image_sizes": torch.tensor([list(size)] * count)}
