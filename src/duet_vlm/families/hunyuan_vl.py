"""HunyuanOCR: images of any size, 2 x 2 patches to a visual token, with row ends and two marks among their tokens.

Its decoder has positions of four axes, which the model makes of ids and grids. The tower ends every row of an image
with a learned vector and puts one before and one behind the image; in the prompt these take places of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from . import packed
from .encoding import EncoderCall
from .pixel_inputs import Make
from .qwen2_5_vl import Qwen25VL

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class HunYuanVLStage1(packed.PackedStage1):
    """Row ends and both marks go, as they belong to places that are gone."""

    @property
    def attention(self) -> Any:
        return self.tower.layers[-1].self_attn

    def grids(self, call: EncoderCall) -> list[packed.Grid]:
        return [(rows, columns) for _, rows, columns in call.tower_kwargs["grid_thw"].tolist()]

    def block(self, call: EncoderCall) -> packed.Grid:
        return (self.core.config.vision_config.spatial_merge_size,) * 2

    def places(self, grid: packed.Grid) -> Tensor:
        """Leave out the mark in front, and the end of every row."""
        rows, columns = grid
        return (1 + torch.arange(rows)[:, None] * (columns + 1) + torch.arange(columns)).flatten()


class HunYuanVL(Qwen25VL, model_types=("hunyuan_vl",)):
    pixel_arguments: ClassVar[dict[str, tuple[str, ...]]] = {"image": ("pixel_values",)}
    position_axes = 4
    video_processor = None
    stage1 = HunYuanVLStage1
    towers = ("vision_tower",)
    projectors = ("patch_merger",)

    def placeholders(self, config: PreTrainedConfig) -> dict[str, int]:
        return {"image": config.image_token_id}

    def row_ends(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        return int(grid[-2] // config.vision_config.spatial_merge_size + 2)

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        vision, (rows, columns) = config.vision_config, (grid or self.usual_grid(config))[-2:]
        patches = make((count * rows * columns, vision.num_channels * vision.patch_size**2))
        return {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, rows, columns]] * count)}
