"""MiniCPM-V 4.6 and 4.7: crops and frames of any size, a merger inside the tower, and the hybrid decoder of Qwen3.5.

An image is one crop or a small one and its slices, with markers between them; a video is frames that are cut alike. The
tower joins 2 x 2 patches behind one of its layers, unless a call or the config says downsample_mode "4x", and the
merger joins 2 x 2 of what comes out. Scores come from the tower's last layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.settings import Settings
from . import packed
from .encoding import EncoderCall
from .pixel_inputs import Make
from .refusals import refuse_renumbering

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class MiniCPMV4Stage1(packed.PackedStage1):
    """All crops of a call lie side by side in one row; the tower keeps them apart."""

    @property
    def attention(self) -> Any:
        return self.tower.encoder.layers[-1].self_attn

    def joined(self, call: EncoderCall) -> int:
        """Rows, and columns, of patches that the tower has joined where the scoring attention stands."""
        inside = call.tower_kwargs["use_vit_merger"]
        return 2 if inside and self.tower.config.insert_layer_id < len(self.tower.encoder.layers) - 1 else 1

    def grids(self, call: EncoderCall) -> list[packed.Grid]:
        side = self.joined(call)
        return [(rows // side, columns // side) for rows, columns in call.tower_kwargs["target_sizes"].tolist()]

    def block(self, call: EncoderCall) -> packed.Grid:
        side = (2 if call.tower_kwargs["use_vit_merger"] else 1) // self.joined(call)
        high, wide = merged_behind(self.core.config)
        return side * high, side * wide


def merged_behind(config: PreTrainedConfig) -> packed.Grid:
    """Rows and columns that the merger behind the tower joins."""
    high, wide = config.merge_kernel_size
    return high**config.merger_times, wide**config.merger_times


class MiniCPMV46(packed.Packed, model_types=("minicpmv4_6",)):
    """Positions have one axis."""

    stage1 = MiniCPMV4Stage1
    projectors = ("merger",)
    pixels_along = -1

    def block(self, config: PreTrainedConfig) -> packed.Grid:
        side = 1 if config.downsample_mode == "4x" else 2
        high, wide = merged_behind(config)
        return side * high, side * wide

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        sizes = inputs.get("target_sizes", inputs.get("target_sizes_videos"))
        return None if sizes is None else (1, *sizes[0].tolist())

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Patches of all images side by side."""
        vision, (rows, columns) = config.vision_config, (grid or self.usual_grid(config))[-2:]
        width = count * rows * columns * vision.patch_size
        return {
            "pixel_values": make((1, vision.num_channels, vision.patch_size, width)),
            "target_sizes": torch.tensor([[rows, columns]] * count),
        }


class MiniCPMV47(MiniCPMV46, model_types=("minicpmv4_7",)):
    """Positions have three axes, which lay the crops of an image on one canvas."""

    positions = "keep"
    position_axes = 3

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        refuse_renumbering(config, duet, "its positions have three axes")

    def extra_inputs(self, config: PreTrainedConfig, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        kinds = (ids == config.image_token_id).long()
        return {"mm_token_type_ids": kinds, "target_sizes": pixels["target_sizes"]}
