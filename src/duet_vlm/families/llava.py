"""LLaVA-1.5 and its kin: CLIP tower, merged before the projector, CLS first. METHOD: "Stage 1", 7."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from ..config import DuetConfig
from . import clip
from .clip import patches as visual_tokens
from .clip import take_merges

POSITIONS = "renumber"


def check(config: Any, duet: DuetConfig, reserved: int = 1) -> None:
    if duet.merges and config.vision_feature_select_strategy != "default":
        raise ValueError(
            f"stage 1 needs vision_feature_select_strategy 'default', and this model has "
            f"{config.vision_feature_select_strategy!r}: set dominant=None to use stage 2 alone."
        )
    clip.check(config, duet, reserved)


def hook_encoder(core: Any, duet: DuetConfig) -> list[RemovableHandle]:
    """CLS, dominant and contextual tokens, in this order, in the first K1 + K2 places of the image's span."""

    def before_projector(projector: nn.Module, args: tuple[Tensor]) -> Tensor:
        encoding, merge = clip.merge(core, duet, reserved=1)
        assert encoding.output is not None
        return torch.cat([encoding.output[:, :1], merge.retained(args[0])], dim=1)

    def after_projector(projector: nn.Module, args: Any, output: Tensor) -> Tensor:
        return pad(output, (0, 0, 0, clip.finish_encoding().patches - output.shape[1]))

    projector = core.multi_modal_projector
    return [
        *clip.tap(core),
        projector.register_forward_pre_hook(before_projector),
        projector.register_forward_hook(after_projector),
    ]


def finish(core: nn.Module, features: list[Tensor]) -> list[Tensor]:
    return features


__all__ = ["POSITIONS", "check", "finish", "hook_encoder", "take_merges", "visual_tokens"]
