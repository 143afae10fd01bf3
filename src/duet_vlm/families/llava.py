"""LLaVA-1.5 and its kin: CLIP tower, merged before the projector, CLS first. METHOD: "Stage 1", 7."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from ..config import DuetConfig
from ..merging import Merge
from . import clip
from .clip import patches as visual_tokens
from .clip import take_merges

POSITIONS = "renumber"


class Stage1(clip.Stage1):
    """CLS, dominant and contextual tokens, in this order, in the first K1 + K2 places of the image's span."""

    reserved = 1  # for CLS

    def retained(self, patches: Tensor, cls: Tensor, merge: Merge) -> Tensor:
        return torch.cat([cls, merge.retained(patches)], dim=1)

    def placed(self, projected: Tensor, merge: Merge) -> Tensor:
        return pad(projected, (0, 0, 0, merge.scores.shape[1] - projected.shape[1]))


def check(config: Any, duet: DuetConfig, reserved: int = Stage1.reserved) -> None:
    if duet.merges and config.vision_feature_select_strategy != "default":
        raise ValueError(
            f"stage 1 needs vision_feature_select_strategy 'default', and this model has "
            f"{config.vision_feature_select_strategy!r}: set dominant=None to use stage 2 alone."
        )
    clip.check(config, duet, reserved)


def is_whole(config: Any, tokens: int) -> bool:
    return tokens == visual_tokens(config)


def hook_encoder(core: Any, duet: DuetConfig) -> list[RemovableHandle]:
    return Stage1(core, duet).hook()


def finish(core: nn.Module, features: list[Tensor]) -> list[Tensor]:
    return features


__all__ = ["POSITIONS", "Stage1", "check", "finish", "hook_encoder", "is_whole", "take_merges", "visual_tokens"]
