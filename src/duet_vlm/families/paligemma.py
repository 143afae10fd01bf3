"""PaliGemma: image and question attend to each other both ways; merged behind the projector, each patch a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import CacheError
from . import fixed

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class PaliGemmaStage1(fixed.FixedStage1):
    """Retained tokens stay at their places in the image; zeros elsewhere."""

    def pool(self, x: Tensor) -> Tensor:
        return x


class PaliGemma(fixed.Fixed, model_types=("paligemma",)):
    """What an answer's tokens see is causal, as `token_type_ids` say; the stock masks know it."""

    stage1 = PaliGemmaStage1

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        return int(config.vision_config.image_size // config.vision_config.patch_size) ** 2

    def extra_inputs(self, config: PreTrainedConfig, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"token_type_ids": ids.new_zeros(ids.shape)}

    def sees_ahead(self, kwargs: dict[str, Any], past: int) -> bool:
        if past:
            raise CacheError(
                "what a paligemma sees in a later turn depends on how its pixels are passed: begin with the "
                "image, in a new cache."
            )
        return kwargs.get("token_type_ids") is not None
