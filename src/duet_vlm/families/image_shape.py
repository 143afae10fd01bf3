"""An image as the language model gets it uncompressed: how many visual tokens, in how many crops or tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config.budget import after_drops, stage1_counts
from ..config.settings import Settings


@dataclass(frozen=True)
class ImageShape:
    """One image as the language model gets it uncompressed.

    Attributes:
        visual_tokens: all of them, an AnyRes image's row ends included.
        crops: how often the vision tower runs on it.
        patches: visual tokens of what stage 1 merges at a time, a crop or a whole image.
        dynamic: whether a small image lowers the counts of stage 1.
        spans: in how many parts stage 2 ranks it.
        unit: what a budget in tokens is given for: an "image", or each "crop" or "tile" of it.
    """

    visual_tokens: int
    crops: int
    patches: int
    dynamic: bool = False
    spans: int = 1
    unit: str = "image"

    @classmethod
    def of(cls, config: Any, grid: tuple[int, ...] | None = None, tiles: int | None = None) -> ImageShape:
        """An image of a supported model, from its transformers config; see `Family.image_shape`."""
        from . import family_of  # families make shapes

        return family_of(config).image_shape(config, grid, tiles)

    def tokens_per_layer(self, config: Settings, layers: int) -> list[int]:
        """Visual tokens of the image in every decoder layer, counted as in docs/method.md, Budgets."""
        entering = self.visual_tokens
        if config.merges:
            entering = self.crops * sum(stage1_counts(config, self.patches, self.dynamic))
        return [self.spans * n for n in after_drops(config, entering // self.spans, layers)]


def largest_grid(config: Any) -> tuple[int, int]:
    """(height, width) in pixels of an AnyRes model's largest grid of crops."""
    height, width = max(config.image_grid_pinpoints, key=lambda size: size[0] * size[1])
    return height, width


def largest_tiles(config: Any) -> tuple[int, int, int]:
    """Rows and columns of crops of an AnyRes model's largest grid, and rows of patches of one crop."""
    side = config.vision_config.image_size
    height, width = largest_grid(config)
    return height // side, width // side, side // config.vision_config.patch_size
