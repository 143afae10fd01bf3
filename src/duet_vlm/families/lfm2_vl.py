"""LFM2-VL: tiles of any size in one padded batch, 2 x 2 patches to a visual token, and a decoder of short convolutions.

A large image is tiles and a small copy of it, with text between them. Most decoder layers are convolutions over three
tokens, which hold the last of them instead of keys and values; the engine takes them as linear layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.settings import Settings
from ..errors import DuetError
from ..host.attention import received
from . import packed
from .encoding import EncoderCall
from .pixel_inputs import Make

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TOWER = "siglip2_vision_model"


class Lfm2VLStage1(packed.PackedStage1):
    """Scores are made as if a tile's padding were not there: it neither gives nor receives attention."""

    @property
    def attention(self) -> Any:
        return self.tower.encoder.layers[-1].self_attn

    def grids(self, call: EncoderCall) -> list[packed.Grid]:
        return [(rows, columns) for rows, columns in call.tower_kwargs["spatial_shapes"].tolist()]

    def block(self, call: EncoderCall) -> packed.Grid:
        return (self.core.config.downsample_factor,) * 2

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        for patches, (rows, columns) in zip(hidden.split(1), self.grids(call), strict=True):
            self.note(call, (rows, columns), *received(attention, patches[:, : rows * columns])[0])


class Lfm2VL(packed.Packed, model_types=("lfm2_vl",)):
    stage1 = Lfm2VLStage1
    pixel_masks = ("pixel_attention_mask",)

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        kind = config.vision_config.model_type
        if duet.merges and kind != TOWER:
            raise DuetError(
                f"stage 1 needs a {TOWER}, and this model has a {kind}: set dominant=None to use stage 2 alone."
            )

    def block(self, config: PreTrainedConfig) -> packed.Grid:
        return (config.downsample_factor,) * 2

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        shapes = inputs.get("spatial_shapes")
        return None if shapes is None else (1, *shapes[0].tolist())

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Flat patches of each image, and a mask that tells them from padding."""
        vision, (rows, columns) = config.vision_config, (grid or self.usual_grid(config))[-2:]
        return {
            "pixel_values": make((count, rows * columns, vision.num_channels * vision.patch_size**2)),
            "spatial_shapes": torch.tensor([[rows, columns]] * count),
            "pixel_attention_mask": torch.ones(count, rows * columns, dtype=torch.long),
        }
