"""DeepSeek-VL and Janus: a tower for images of one size, each patch of which is a visual token; the score is received.

Janus also draws: pictures that it makes are tokens of an answer, and nothing of them is merged or dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from . import fixed
from .pixel_inputs import Make

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class DeepseekVLStage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the image; zeros elsewhere."""

    def pool(self, x: Tensor) -> Tensor:
        return x


class DeepseekVL(fixed.Fixed, model_types=("deepseek_vl", "janus")):
    stage1 = DeepseekVLStage1
    towers: tuple[str, ...] = ("vision_model",)
    projectors = ("aligner",)

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        return int(config.vision_config.image_size // config.vision_config.patch_size) ** 2


class DeepseekVLHybrid(DeepseekVL, model_types=("deepseek_vl_hybrid",)):
    """A second tower, SAM, sees the image in a higher resolution, for the same tokens; the score is the first's."""

    pixel_arguments: ClassVar[dict[str, tuple[str, ...]]] = {"image": ("pixel_values", "high_res_pixel_values")}
    towers = ("vision_model", "high_res_vision_model", "high_res_vision_neck", "high_res_vision_proj")

    def pixels(
        self, config: PreTrainedConfig, make: Make, count: int = 1, *,
        grid: tuple[int, ...] | None = None, tiles: int = 1, size: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        side = config.high_res_vision_config.image_size
        return {**super().pixels(config, make, count), "high_res_pixel_values": make((count, 3, side, side))}
