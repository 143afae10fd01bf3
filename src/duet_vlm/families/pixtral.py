"""Pixtral: images of any size, all of a batch in one row under a mask; the score is the attention that is received.

The tokens that end rows of an image, [IMG_BREAK] and [IMG_END], are text of the prompt: none of them is ever dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.settings import Settings
from ..host.attention import received
from . import packed
from .encoding import EncoderCall
from .features import check_feature_layer, feature_layer
from .pixel_inputs import Make

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class PixtralStage1(packed.PackedStage1):
    """Without a mask, from an image's own patches, scores are those of the image alone."""

    @property
    def attention(self) -> Any:
        return feature_layer(self.core.config, self.tower.transformer.layers).attention

    def cannot_follow(self, arguments: dict[str, Any]) -> str | None:
        if arguments.get("image_sizes") is None:
            return "images came without image_sizes, which tell them apart: pass what the processor gives."
        return super().cannot_follow(arguments)

    def grids(self, call: EncoderCall) -> list[packed.Grid]:
        return grids_of(self.core.config, call.arguments)

    def block(self, call: EncoderCall) -> packed.Grid:
        return (side_of(self.core.config),) * 2

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        (cos, sin), start = others["position_embeddings"], 0
        for grid in self.grids(call):
            part = slice(start, start + grid[0] * grid[1])
            alone = received(attention, hidden[:, part], position_embeddings=(cos[part], sin[part]))
            self.note(call, grid, *alone[0])
            start = part.stop


def side_of(config: PreTrainedConfig) -> int:
    """Rows, and columns, of patches that make one visual token."""
    return int(getattr(config, "spatial_merge_size", 1))


def grids_of(config: PreTrainedConfig, inputs: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Rows and columns of patches of every image of a call or a prompt."""
    patch = config.vision_config.patch_size
    return [(h // patch, w // patch) for h, w in torch.as_tensor(inputs["image_sizes"]).tolist()]


class Pixtral(packed.Packed):
    """What Mistral 3 and LLaVA with a Pixtral tower share."""

    stage1 = PixtralStage1

    def block(self, config: PreTrainedConfig) -> packed.Grid:
        return (side_of(config),) * 2

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        if duet.merges:
            check_feature_layer(config)

    def grid_of(self, config: PreTrainedConfig, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
        if inputs.get("image_sizes") is None:
            return None
        side, grid = side_of(config), grids_of(config, inputs)[0]
        # an image processor that was not told of the merging gives rows and columns that a processor rounds up
        rows, columns = (-(-n // side) * side for n in grid)
        return 1, rows, columns

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        patch = config.vision_config.patch_size
        height, width = (n * patch for n in (grid or self.usual_grid(config))[-2:])
        return {"pixel_values": make((count, 3, height, width)), "image_sizes": torch.tensor([[height, width]] * count)}
