"""Gemma 3: images and crops, merged behind the projector; the score is the attention that a patch receives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..config.settings import Settings
from . import fixed
from .refusals import refuse_renumbering
from .video.sampling import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Gemma3Stage1(fixed.FixedStage1):
    def pool(self, x: Tensor) -> Tensor:
        """The projector averages squares of patches."""
        side = self.projector.patches_per_image
        pooled: Tensor = self.projector.avg_pool(x.transpose(1, 2).unflatten(2, (side, side)))
        return pooled.flatten(2).transpose(1, 2)


class Gemma3(fixed.Fixed, model_types=("gemma3",)):
    """Windows and the two-way attention inside an image are in the stock masks, which speak of the full sequence."""

    positions = "keep"
    tiled = tiles_apart = True
    frames_as_images = Sampling(count=8)
    stage1 = Gemma3Stage1

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        return int(config.mm_tokens_per_image)

    def extra_inputs(self, config: PreTrainedConfig, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"token_type_ids": (ids == config.image_token_id).long()}

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        refuse_renumbering(config, duet, "its layers have rotary embeddings of two kinds, and windows of positions")
        super().check(config, duet)
