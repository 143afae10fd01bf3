"""LLaVA-1.5 and its kin: CLIP tower, merged before the projector, CLS first (docs/method.md, 1.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..config.settings import Settings
from ..errors import DuetError
from ..stage1 import Merge
from . import cls_tower
from .downsample import Downsample
from .encoding import Stage1
from .family import Family
from .pixtral import Pixtral

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class LlavaStage1(cls_tower.ClsStage1):
    """CLS, dominant and contextual tokens, in this order, in the first K1 + K2 places of the image's span."""

    reserved = 1  # for CLS

    def retained(self, patches: Tensor, cls: Tensor, merge: Merge) -> Tensor:
        return torch.cat([cls, merge.retained(patches)], dim=1)

    def places(self, merge: Merge) -> tuple[Tensor, Tensor]:
        sizes = pad(merge.sizes, (1, 0), value=1.0)  # CLS stands for itself
        return torch.arange(sizes.shape[1], device=sizes.device).expand_as(sizes), sizes


class Llava(Family, model_types=("llava",)):
    """LLaVA with a tower that makes a fixed number of tokens of every image; stage 1 where the first of them is CLS."""

    reserved = LlavaStage1.reserved
    downsamples = True
    every_patch = True
    stage1: type[Stage1] = LlavaStage1
    shrinking: type[Downsample] = Downsample

    def variant(self, config: PreTrainedConfig) -> Family:
        kind = config.vision_config.model_type
        if type(self) is not Llava or kind in (*cls_tower.KINDS, *WITHOUT_CLS):
            return self
        return WITH_PIXTRAL if kind == "pixtral" else ANY_TOWER

    def visual_tokens(self, config: PreTrainedConfig) -> int:
        """Patches, CLS where the strategy keeps it; "default" leaves out the first token, whatever it is."""
        cls = config.vision_config.model_type not in WITHOUT_CLS
        return cls_tower.count_patches(config) + cls - int(config.vision_feature_select_strategy == "default")

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        cls_tower.check_tower(config, duet, self.reserved)
        if duet.merges and config.vision_feature_select_strategy != "default":
            raise DuetError(
                f"stage 1 needs vision_feature_select_strategy 'default', and this model has "
                f"{config.vision_feature_select_strategy!r}: set dominant=None to use stage 2 alone."
            )

    def is_whole(self, config: PreTrainedConfig, tokens: int) -> bool:
        # the strategy may come with a call
        return tokens in (
            cls_tower.count_patches(config) + 1,
            cls_tower.count_patches(config),
            cls_tower.count_patches(config) - 1,
        )

    def hook_encoder(self, core: Any, duet: Settings) -> list[Any]:
        return (self.stage1 if duet.downsample is None else self.shrinking)(core, duet, self).hook()


WITHOUT_CLS = ("siglip_vision_model",)


class AnyTower(Family):
    """LLaVA with a tower of its own kind: stage 2 alone."""

    dynamic = True

    def tokens_of_grid(self, config: PreTrainedConfig, grid: tuple[int, ...]) -> int:
        frames, rows, columns = (1, *grid)[-3:]
        return frames * rows * columns

    def check(self, config: PreTrainedConfig, duet: Settings) -> None:
        cls_tower.check_tower(config, duet, LlavaStage1.reserved)


ANY_TOWER, WITH_PIXTRAL = AnyTower(), Pixtral()
