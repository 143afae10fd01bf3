"""Encoders that give every image, tile or frame the same number of patches, merged behind the projector.

METHOD, "Stage 1", 7, encoders without CLS: a retained token stays at its place, an anchor's place holds its contextual
token. Attention statistics are made when the projector is done and for one image at a time, from what the scoring
attention was given: that of a long video would be as large as the video's hidden states. What is noted belongs to one
call of the tower: it lives in a context variable, so threads and copies of a model share nothing.
"""

from __future__ import annotations

import math
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..attention import received
from ..budget import stage1_counts
from ..config import DuetConfig
from ..merging import Encoded, Merge
from .family import Family, check_feature_layer, feature_layer
from .received import merged_in_place


@dataclass
class Noted:
    """One call of the vision tower.

    Attributes:
        given: the tower's keyword arguments.
        hidden: (B, patches, D) what the scoring attention was given, of all images.
        result: the tower's output object, which `get_..._features` hands on.
    """

    given: dict[str, Any]
    hidden: Tensor | None = None
    result: Any = None


_noted: ContextVar[Noted | None] = ContextVar("duet_vlm_fixed", default=None)


class Stage1:
    """Stage 1 of one applied model. A family says where its modules are and what its projector makes of patches.

    Bound methods are hooked, not closures, so that a deep copy of the model hooks its own modules.

    Attributes:
        dynamic: whether an image may be too small for the counts, which are then lowered.
    """

    dynamic = False

    def __init__(self, core: Any, config: DuetConfig):
        self.core, self.config = core, config

    @property
    def tower(self) -> Any:
        return self.core.vision_tower

    @property
    def projector(self) -> Any:
        return self.core.multi_modal_projector

    @property
    def attention(self) -> Any:
        """The attention that scores, of the layer whose output the model uses as features."""
        return feature_layer(self.core.config, self.tower.encoder.layers).self_attn

    def score(self, noted: Noted, image: int) -> tuple[Tensor, Tensor]:
        """(1, patches) scores and (1, patches, d) keys of one image: the attention that a patch receives."""
        assert noted.hidden is not None
        return received(self.attention, noted.hidden[image : image + 1])[0]

    def pool(self, x: Tensor) -> Tensor:
        """(B, patches, C) -> (B, n, C), the mean over the patches that make one visual token."""
        raise NotImplementedError

    def hook(self) -> list[RemovableHandle]:
        return [*self.taps(), self.projector.register_forward_hook(self.after_projector)]

    def taps(self) -> list[RemovableHandle]:
        pre = {"with_kwargs": True}
        return [
            self.tower.register_forward_pre_hook(self.before_tower, **pre),
            self.attention.register_forward_pre_hook(self.before_attention, **pre),
            self.tower.register_forward_hook(self.after_tower),
        ]

    def before_tower(self, tower: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        _noted.set(Noted(kwargs))

    def before_attention(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        noted = _noted.get()
        if noted is not None:  # a backward pass with checkpoints runs it once more
            noted.hidden = args[0] if args else kwargs["hidden_states"]

    def after_tower(self, tower: nn.Module, args: Any, output: Any) -> None:
        noted = _noted.get()
        assert noted is not None
        noted.result = output

    def after_projector(self, projector: nn.Module, args: Any, output: Tensor) -> Tensor:
        noted, kept, merges = self.noted(), [], []
        for image, features in enumerate(output.split(1)):
            side = math.isqrt(features.shape[1])
            tokens, decided = self.merged(self.pool(self.statistics(noted, image)), features, (side, side))
            kept.append(tokens)
            merges.append(decided)
        noted.result.duet_merges = merges
        return torch.cat(kept)

    def noted(self) -> Noted:
        """What the tower's call that is over has left; it is taken away."""
        noted = _noted.get()
        assert noted is not None
        _noted.set(None)
        return noted

    def statistics(self, noted: Noted, image: int) -> Tensor:
        """(1, patches, 1 + d) the score and the key of every patch of one image."""
        scores, keys = self.score(noted, image)
        return torch.cat([scores[..., None].to(keys), keys], dim=2)

    def merged(self, statistics: Tensor, features: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Merge]:
        """(1, n, D) tokens in place, from (1, n, 1 + d) statistics and (1, n, D) features of one image."""
        statistics = statistics.to(features.device)  # tower and projector may live on different ones
        # the trace keeps the scores; a view would keep the keys with them
        encoded = Encoded(statistics[..., 0].clone(), statistics[..., 1:], features, grid)
        return merged_in_place(self.config, encoded, self.dynamic)


class Fixed(Family):
    """A family whose images, tiles or frames all have `visual_tokens`."""

    stage_1: type[Stage1]

    def check(self, config: Any, duet: DuetConfig) -> None:
        if duet.merges:
            check_feature_layer(config)
            stage1_counts(duet, self.visual_tokens(config))

    def is_whole(self, config: Any, tokens: int) -> bool:
        return tokens % self.visual_tokens(config) == 0  # some hand over all tiles of a sample at once

    def hook_encoder(self, core: Any, duet: DuetConfig) -> list[RemovableHandle]:
        return self.stage_1(core, duet).hook()


def mean_of_groups(x: Tensor, channels: int) -> Tensor:
    """(B, n, patches * channels), as pixel shuffles lay out the patches of one token -> (B, n, channels)."""
    return x.unflatten(2, (-1, channels)).mean(2)
