"""DeepSeek-VL and Janus: a tower for images of one size, each patch of which is a visual token; the score is received.

Janus also draws: pictures that it makes are tokens of an answer, and nothing of them is merged or dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from . import fixed

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class DeepseekVLStage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the image; zeros elsewhere."""

    def pool(self, x: Tensor) -> Tensor:
        return x


class DeepseekVL(fixed.Fixed, model_types=("deepseek_vl", "janus")):
    stage1 = DeepseekVLStage1
    towers = ("vision_model",)
    projectors = ("aligner",)

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        return int(config.vision_config.image_size // config.vision_config.patch_size) ** 2
