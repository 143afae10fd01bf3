"""ViP-LLaVA: features of several layers of a CLIP tower side by side, merged before the projector.

The score is the CLS row of the deepest of these layers. CLS is no feature here, so it takes no place: docs/method.md,
1.7, as LLaVA-NeXT's crops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config.settings import Settings
from ..errors import DuetError
from . import cls_tower
from .family import Family

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class VipLlavaStage1(cls_tower.ClsStage1):
    """Dominant tokens in their places, contextual ones in their anchors', zeros elsewhere."""

    def scoring_layer(self, layers: Any) -> Any:
        return layers[deepest(self.core.config, len(layers)) - 1]


def deepest(config: PreTrainedConfig, layers: int) -> int:
    """The last of the tower's hidden states that are features; 0 is what enters its first layer."""
    listed = config.vision_feature_layer
    indices = [listed] if isinstance(listed, int) else listed
    return max(index if index >= 0 else layers + 1 + index for index in indices)


class VipLlava(Family, model_types=("vipllava",)):
    stage1 = VipLlavaStage1

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        return cls_tower.count_patches(config)

    def is_whole(self, config: PreTrainedConfig, tokens: int) -> bool:
        return tokens == self.visual_tokens(config)

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        cls_tower.check_tower(config, duet, VipLlavaStage1.reserved, one_layer=False)
        if duet.merges and deepest(config, config.vision_config.num_hidden_layers) == 0:
            raise DuetError(
                f"stage 1 needs a vision_feature_layer that is not 0, and this model uses "
                f"{config.vision_feature_layer!r}: set dominant=None to use stage 2 alone."
            )
