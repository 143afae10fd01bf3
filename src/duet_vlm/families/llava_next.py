"""LLaVA-NeXT (AnyRes): stage 1 per crop; what is retained stays at its place in the crop's grid, CLS takes none."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..config import DuetConfig
from ..merging import Merge
from . import clip, llava
from .clip import patches as visual_tokens
from .clip import take_merges

POSITIONS = "renumber"


class Stage1(clip.Stage1):
    """Dominant tokens in their places, contextual ones in their anchors', zeros elsewhere."""

    def retained(self, patches: Tensor, cls: Tensor, merge: Merge) -> Tensor:
        return merge.retained(patches)

    def placed(self, projected: Tensor, merge: Merge) -> Tensor:
        places = merge.places[..., None].expand_as(projected)
        full = projected.new_zeros(projected.shape[0], merge.scores.shape[1], projected.shape[2])
        return full.scatter(1, places, projected)


def check(config: Any, duet: DuetConfig) -> None:
    llava.check(config, duet, Stage1.reserved)


def is_whole(config: Any, tokens: int) -> bool:
    return tokens > visual_tokens(config)  # a base crop and tiles; how many depends on the image


def hook_encoder(core: Any, duet: DuetConfig) -> list[RemovableHandle]:
    return Stage1(core, duet).hook()


def finish(core: Any, features: list[Tensor]) -> list[Tensor]:
    """The row-end newline tokens go: they mark rows that are no longer there."""
    return [f.masked_fill((f == core.image_newline.to(f)).all(-1, keepdim=True), 0) for f in features]


__all__ = ["POSITIONS", "Stage1", "check", "finish", "hook_encoder", "is_whole", "take_merges", "visual_tokens"]
