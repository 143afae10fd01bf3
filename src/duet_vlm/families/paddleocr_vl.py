"""PaddleOCR-VL: positions of Qwen2-VL, and a SigLIP tower for images of any size, four patches to a visual token.

It reads pictures alone. Patches lie row by row until the projector joins them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from . import packed
from .blocks import Blocks, filled, in_blocks, patches_of
from .encoding import EncoderCall
from .pixel_inputs import Make
from .pixelprune import Pruning, at_places, frames_of, interpolated
from .qwen2_5_vl import Qwen25VL

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class PaddleOCRVLStage1(packed.PackedStage1):
    @property
    def attention(self) -> Any:
        return self.tower.vision_model.encoder.layers[-1].self_attn

    def grids(self, call: EncoderCall) -> list[packed.Grid]:
        found = call.tower_kwargs["grid_thw"].tolist()
        return [(rows, columns) for frames, rows, columns in found for _ in range(frames)]

    def block(self, call: EncoderCall) -> packed.Grid:
        return (self.core.config.vision_config.spatial_merge_size,) * 2


class PaddlePruning(Pruning):
    """Patches lie row by row, and the projector joins them: it gets all of them, zeros where some were left out."""

    @property
    def side(self) -> int:
        return int(self.stage.core.config.vision_config.spatial_merge_size)

    def images(self, tower: Any, given: dict[str, Any]) -> list[Tensor]:
        grids = frames_of(given["grid_thw"])
        each = given["pixel_values"][0].flatten(2).split([rows * columns for rows, columns in grids])
        return [in_blocks(pixels, grid, self.side) for pixels, grid in zip(each, grids, strict=True)]

    def told(self, tower: Any, given: dict[str, Any], blocks: Blocks) -> dict[str, Any]:
        grids = frames_of(given["grid_thw"])
        blocks.patches = [patches_of(kept, grid, self.side) for kept, grid in zip(blocks.kept, grids, strict=True)]
        there = blocks.row_by_row
        told = given | at_places(given, blocks, there, 1) | {"pixel_values": given["pixel_values"][:, there]}
        return told | interpolated(tower.vision_model.embeddings, given, there, 1)

    def after_tower(self, tower: nn.Module, args: Any, output: Any) -> Any:
        blocks = self.gone()
        if blocks is None:
            return None
        output.last_hidden_state = filled(output.last_hidden_state, blocks.row_by_row)
        return output


class PaddleOCRVL(Qwen25VL, model_types=("paddleocr_vl",)):
    """Pixels are patches, (n, 3, size, size), of all images."""

    pixel_arguments: ClassVar[dict[str, tuple[str, ...]]] = {"image": ("pixel_values",)}
    video_processor = None
    stage1 = PaddleOCRVLStage1
    pruning = PaddlePruning
    projectors = ("projector",)

    def placeholders(self, config: PreTrainedConfig) -> dict[str, int]:
        return {"image": config.image_token_id}

    def crops_in(self, inputs: Any) -> Tensor | None:
        return None  # patches of whole pictures

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        vision, (rows, columns) = config.vision_config, (grid or self.usual_grid(config))[-2:]
        patches = make((count * rows * columns, vision.num_channels, vision.patch_size, vision.patch_size))
        return {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, rows, columns]] * count)}
