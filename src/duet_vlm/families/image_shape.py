"""An image as the language model gets it uncompressed: how many visual tokens, in how many crops or tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..config.budget import after_drops, stage1_counts
from ..config.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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
        row_ends: those of `visual_tokens` that end rows, which stage 1 takes away.
        size: (height, width) in pixels, of an AnyRes model's image.
    """

    visual_tokens: int
    crops: int
    patches: int
    dynamic: bool = False
    spans: int = 1
    unit: Literal["image", "crop", "tile"] = "image"
    row_ends: int = 0
    size: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        config: PreTrainedConfig,
        grid: tuple[int, ...] | None = None,
        tiles: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> ImageShape:
        """An image of a supported model, from its transformers config; see `Family.image_shape`."""
        from . import family_of  # families make shapes

        return family_of(config).image_shape(config, grid, tiles, size)

    def tokens_per_layer(self, config: Settings, layers: int) -> list[int]:
        """Visual tokens of the image in every decoder layer, counted as in docs/method.md, Budgets."""
        entering = self.visual_tokens
        if config.merges:
            per_part = sum(stage1_counts(config, self.patches, self.dynamic))
            # a crop that holds padding retains in proportion
            entering = per_part if self.dynamic else round(per_part * (entering - self.row_ends) / self.patches)
        return [self.spans * n for n in after_drops(config, entering // self.spans, layers)]


def largest_grid(config: PreTrainedConfig) -> tuple[int, int]:
    """(height, width) in pixels of an AnyRes model's largest grid of crops."""
    height, width = max(config.image_grid_pinpoints, key=lambda size: size[0] * size[1])
    return height, width
