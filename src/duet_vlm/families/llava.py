"""LLaVA-1.5 and its kin: CLIP tower, merged before the projector, CLS first. METHOD: "Stage 1", 7."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..config import DuetConfig
from ..errors import DuetError
from ..merging import Merge
from . import clip
from .downsample import Downsample
from .family import Family


class Stage1(clip.Stage1):
    """CLS, dominant and contextual tokens, in this order, in the first K1 + K2 places of the image's span."""

    reserved = 1  # for CLS

    def retained(self, patches: Tensor, cls: Tensor, merge: Merge) -> Tensor:
        return torch.cat([cls, merge.retained(patches)], dim=1)

    def placed(self, projected: Tensor, merges: list[Merge], length: int) -> tuple[Tensor, Tensor]:
        sizes = torch.cat([merge.sizes for merge in merges])
        kept = projected.shape[1]
        sizes = pad(sizes, (kept - sizes.shape[1], 0), value=1.0)  # CLS stands for itself
        return pad(projected, (0, 0, 0, length - kept)), pad(sizes, (0, length - kept))


class Llava(Family):
    reserved = Stage1.reserved
    downsamples = True

    def visual_tokens(self, config: Any) -> int:
        return clip.patches(config)

    def check(self, config: Any, duet: DuetConfig) -> None:
        if duet.merges and config.vision_feature_select_strategy != "default":
            raise DuetError(
                f"stage 1 needs vision_feature_select_strategy 'default', and this model has "
                f"{config.vision_feature_select_strategy!r}: set dominant=None to use stage 2 alone."
            )
        clip.check(config, duet, self.reserved)

    def is_whole(self, config: Any, tokens: int) -> bool:
        return tokens == self.visual_tokens(config)

    def hook_encoder(self, core: Any, duet: DuetConfig) -> list[Any]:
        if duet.downsample is not None:
            return Downsample(core, duet, clip.grid(core.config)).hook()
        return Stage1(core, duet).hook()
