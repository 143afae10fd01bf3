"""An image as the language model gets it uncompressed: how many visual tokens, in how many crops or tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..config.budget import after_drops, as_grid, stage1_counts
from ..config.settings import Settings
from ..errors import DuetError
from . import family_of

# models that cut a photo into tiles, each with as many tokens -> whether stage 2 ranks each tile by itself, as text
# stands between them
TILED = {"internvl": False, "gemma3": True, "smolvlm": True, "idefics3": True}
ANYRES = ("llava_next", "llava_onevision")  # models that cut a photo into crops of a grid, beside the whole of it


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
    unit: str = "image"
    row_ends: int = 0
    size: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        config: Any,
        grid: tuple[int, ...] | None = None,
        tiles: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> ImageShape:
        """The image of a fixed-resolution model, the largest one of an AnyRes model's grids, or one of `grid` patches.

        Args:
            grid: rows and columns of the image's patches, for models whose images differ.
            tiles: how many tiles it is cut into, for models that do that (`TILED`); one if not given.
            size: (height, width) in pixels, for AnyRes models (`ANYRES`); their largest grid, filled, if not given.

        Raises:
            ValueError: no grid, and a model whose images differ; tiles of a model that cuts none.
        """
        grid = None if grid is None else as_grid(grid)
        family, anyres = family_of(config), config.model_type in ANYRES
        if config.model_type in TILED:
            return cls._of_tiles(config, 1 if tiles is None else tiles, grid)
        if tiles is not None:
            whole = ", and an image of its largest grid of crops is counted as a whole" if anyres else ""
            raise DuetError(
                f"tiles {tiles} is for models of type {', '.join(TILED)}, and this one is a {config.model_type}{whole}"
                ": leave tiles= out."
            )
        if anyres and grid is None:
            return cls._of_crops(config, largest_grid(config) if size is None else size)
        if grid is None and family.dynamic:
            raise DuetError(
                f"images of a {config.model_type} have different numbers of visual tokens: give grid=, the rows "
                "and columns of the image's patches, too."
            )
        patches = family.visual_tokens(config) if grid is None else family.tokens_of_grid(config, grid)
        ends = family.row_ends(config, grid) if grid and family.dynamic else 0
        return cls(patches + ends, 1, patches, dynamic=family.dynamic, row_ends=ends)

    @classmethod
    def _of_crops(cls, config: Any, size: tuple[int, int]) -> ImageShape:
        """An AnyRes image: the base crop, and the tiles without padding, a token at the end of each row."""
        family, (crops, rows, columns) = family_of(config), tiles_of(config, size)
        if family.dynamic:  # merged as a whole
            patches, ends = family.tokens_of_grid(config, (rows, columns)), family.row_ends(config, (rows, columns))
            return cls(patches + ends, 1 + crops, patches, dynamic=True, row_ends=ends, size=size)
        patches = family.visual_tokens(config)
        return cls(patches + rows * (columns + 1), 1 + crops, patches, unit="crop", row_ends=rows, size=size)

    @classmethod
    def _of_tiles(cls, config: Any, tiles: int, grid: tuple[int, ...] | None) -> ImageShape:
        family = family_of(config)
        if tiles < 1:
            raise DuetError(f"tiles {tiles} shows the model nothing: give 1 or more.")
        patches = family.visual_tokens(config) if grid is None else family.tokens_of_grid(config, grid)
        return cls(tiles * patches, tiles, patches, spans=tiles if TILED[config.model_type] else 1, unit="tile")

    def tokens_per_layer(self, config: Settings, layers: int) -> list[int]:
        """Visual tokens of the image in every decoder layer, as METHOD counts them."""
        entering = self.visual_tokens
        if config.merges:
            per_part = sum(stage1_counts(config, self.patches, self.dynamic))
            # a crop that holds padding retains in proportion
            entering = per_part if self.dynamic else round(per_part * (entering - self.row_ends) / self.patches)
        return [self.spans * n for n in after_drops(config, entering // self.spans, layers)]


def largest_grid(config: Any) -> tuple[int, int]:
    """(height, width) in pixels of an AnyRes model's largest grid of crops."""
    height, width = max(config.image_grid_pinpoints, key=lambda size: size[0] * size[1])
    return height, width


def tiles_of(config: Any, size: tuple[int, int]) -> tuple[int, int, int]:
    """Of an AnyRes image of (height, width) pixels: its crops beside the base, rows and columns of patches in them.

    Stock code chooses the grid and cuts off what is padding.
    """
    from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

    side = config.vision_config.image_size
    in_row = side // config.vision_config.patch_size
    down, across = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, side)
    _, rows, columns = unpad_image(torch.empty(1, down * in_row, across * in_row), size).shape
    return down * across, rows, columns
