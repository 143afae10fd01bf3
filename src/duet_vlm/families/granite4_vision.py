"""Granite 4 Vision: AnyRes crops, of which several sets of features are added before several decoder layers.

The encoder hands over no one set that stage 1 could merge, so stage 2 runs alone. What a layer adds to tokens that are
gone is gone with them.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ..config.settings import Settings
from ..host import tiles_of
from .anyres import AnyRes
from .image_shape import ImageShape, largest_grid
from .refusals import refuse_stage_1

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Granite4Vision(AnyRes, model_types=("granite4_vision",)):
    """Each window of a crop's patches becomes a smaller square of visual tokens."""

    projectors = ("layerwise_projectors", "spatial_projectors", "image_newline")

    def entries(self, output: Any) -> Any:
        """One of the sets, of each image (n, D)."""
        return output.deepstack_features[0][1]

    def side(self, config: PreTrainedConfig) -> int:
        """Rows, and columns, of visual tokens of a crop."""
        vision = config.vision_config
        return int(vision.image_size // vision.patch_size * Fraction(config.downsample_rate))

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        return self.side(config) ** 2

    def image_shape(
        self, config: PreTrainedConfig, grid: tuple[int, ...] | None = None, tiles: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> ImageShape:  # fmt: skip
        """The base crop, and the tiles without padding, a token at the end of each row of visual tokens."""
        if grid is not None or tiles is not None:
            return super().image_shape(config, grid, tiles)
        size = largest_grid(config) if size is None else size
        crops, rows, columns = tiles_of(config, size, self.side(config))
        patches = self.visual_tokens(config)
        return ImageShape(patches + rows * (columns + 1), 1 + crops, patches, unit="crop", row_ends=rows, size=size)

    def is_whole(self, config: PreTrainedConfig, tokens: int) -> bool:
        return tokens > self.visual_tokens(config)  # a base crop, and a row end at least

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        refuse_stage_1(config, duet, "its features come in several sets, each for another decoder layer")
