"""SmolVLM and Idefics3: tiles, each merged behind the connector; the score is the attention that a patch receives."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..host.attention import received
from . import fixed
from .encoding import Call


class SmolVLMStage1(fixed.FixedStage1):
    def score(self, call: Call, image: int) -> tuple[Tensor, Tensor]:
        """As if the tile's padding were not there: it neither gives nor receives."""
        assert call.hidden is not None
        hidden, real = call.hidden[image : image + 1], call.tower_kwargs["patch_attention_mask"][image].flatten()
        scores, keys = received(self.attention, hidden[:, real])[0]
        places = real.nonzero()[:, 0]
        whole = keys.new_zeros(1, len(real), 1 + keys.shape[2])
        whole[:, places, 0], whole[:, places, 1:] = scores, keys
        return whole[..., 0], whole[..., 1:]

    def pool(self, x: Tensor) -> Tensor:
        connector = self.projector
        return fixed.mean_of_groups(connector.pixel_shuffle(x, connector.scale_factor), x.shape[2])


class SmolVLM(fixed.Fixed):
    """Spans of stage 2 are runs: every tile and every frame of a video, since text stands between them."""

    runs = ("image",)
    stage1 = SmolVLMStage1
    towers = ("vision_model",)
    projectors = ("connector",)

    def visual_tokens(self, config: Any) -> int:
        side = config.vision_config.image_size // config.vision_config.patch_size
        return int(side**2 // config.scale_factor**2)
