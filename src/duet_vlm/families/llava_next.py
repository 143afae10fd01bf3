"""LLaVA-NeXT (AnyRes): stage 1 per crop; what is retained stays at its place in the crop's grid, CLS takes none."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..config import DuetConfig
from . import clip, llava
from .clip import patches as visual_tokens
from .clip import take_merges

POSITIONS = "renumber"


def check(config: Any, duet: DuetConfig) -> None:
    llava.check(config, duet, reserved=0)


def hook_encoder(core: Any, duet: DuetConfig) -> list[RemovableHandle]:
    """Dominant tokens in their places, contextual ones in their anchors', zeros elsewhere."""

    def before_projector(projector: nn.Module, args: tuple[Tensor]) -> Tensor:
        return clip.merge(core, duet, reserved=0)[1].retained(args[0])

    def after_projector(projector: nn.Module, args: Any, output: Tensor) -> Tensor:
        encoding = clip.finish_encoding()
        assert encoding.merge is not None
        places = encoding.merge.places[..., None].expand_as(output)
        return output.new_zeros(output.shape[0], encoding.patches, output.shape[2]).scatter(1, places, output)

    projector = core.multi_modal_projector
    return [
        *clip.tap(core),
        projector.register_forward_pre_hook(before_projector),
        projector.register_forward_hook(after_projector),
    ]


def finish(core: Any, features: list[Tensor]) -> list[Tensor]:
    """The row-end newline tokens go: they mark rows that are no longer there."""
    return [f.masked_fill((f == core.image_newline.to(f)).all(-1, keepdim=True), 0) for f in features]


__all__ = ["POSITIONS", "check", "finish", "hook_encoder", "take_merges", "visual_tokens"]
