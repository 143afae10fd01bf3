"""An image as the language model gets it uncompressed: how many visual tokens, in how many crops or tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..config.budget import after_drops, as_grid, stage1_counts
from ..config.settings import Settings
from ..errors import DuetError
from . import family_of

# models that cut a photo into tiles, each with as many tokens -> whether stage 2 ranks each tile by itself, as text
# stands between them
TILED = {"internvl": False, "gemma3": True, "smolvlm": True, "idefics3": True}


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
        """The image of a fixed-resolution model, the largest one of an AnyRes model's grids, or one of `grid` patches.

        Args:
            grid: rows and columns of the image's patches, for models whose images differ.
            tiles: how many tiles it is cut into, for models that do that (`TILED`); one if not given.

        Raises:
            ValueError: no grid, and a model whose images differ; tiles of a model that cuts none.
        """
        grid = None if grid is None else as_grid(grid)
        family, anyres = family_of(config), bool(getattr(config, "image_grid_pinpoints", None))
        if config.model_type in TILED:
            return cls._of_tiles(config, 1 if tiles is None else tiles, grid)
        if tiles is not None:
            whole = ", and an image of its largest grid of crops is counted as a whole" if anyres else ""
            raise DuetError(
                f"tiles {tiles} is for models of type {', '.join(TILED)}, and this one is a {config.model_type}{whole}"
                ": leave tiles= out."
            )
        rows, columns, in_row = largest_tiles(config) if anyres else (0, 0, 0)
        if grid is None and family.dynamic:
            if not anyres:
                raise DuetError(
                    f"images of a {config.model_type} have different numbers of visual tokens: give grid=, the rows "
                    "and columns of the image's patches, too."
                )
            grid = rows * in_row, columns * in_row
        patches = family.visual_tokens(config) if grid is None else family.tokens_of_grid(config, grid)
        if family.dynamic:
            return cls(patches + (family.row_ends(config, grid) if grid else 0), 1, patches, dynamic=True)
        # a token at the end of every row
        tokens = patches + rows * in_row * (columns * in_row + 1)
        return cls(tokens, 1 + rows * columns, patches, unit="crop" if anyres else "image")

    @classmethod
    def _of_tiles(cls, config: Any, tiles: int, grid: tuple[int, ...] | None) -> ImageShape:
        family = family_of(config)
        if tiles < 1:
            raise DuetError(f"tiles {tiles} shows the model nothing: give 1 or more.")
        patches = family.visual_tokens(config) if grid is None else family.tokens_of_grid(config, grid)
        return cls(tiles * patches, tiles, patches, spans=tiles if TILED[config.model_type] else 1, unit="tile")

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
