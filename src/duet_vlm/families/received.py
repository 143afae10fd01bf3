"""Encoders without CLS: the attention that a token receives is the score. METHOD: "Stage 1", 1.

It is taken while the scoring layer's attention is called, a segment (image, frame) at a time and streamed over query
blocks, so no n x n map is made and nothing of that size outlives the call. What the taps collect belongs to one call of
the tower: it lives in a context variable, so threads and copies of a model share nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..attention import received
from ..config import DuetConfig
from ..merging import Encoded, Merge, merge
from ..proportional import with_sizes


@dataclass
class Encoding:
    """One call of the vision tower.

    Attributes:
        given: the tower's keyword arguments.
        scores, keys: per segment, (B, n) and (B, n, d) of the visual tokens that its patches become.
        result: the tower's output object, which `get_..._features` hands on.
    """

    given: dict[str, Any]
    scores: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    result: Any = None


_encoding: ContextVar[Encoding | None] = ContextVar("duet_vlm_received", default=None)


def encoding() -> Encoding:
    """What this context's last call of a tower has collected."""
    found = _encoding.get()
    assert found is not None
    return found


class Tap:
    """Hooks on one tower.

    Bound methods are hooked, not closures, so that a deep copy of the model hooks its own tower.

    Args:
        core: the core model.
        tower: core -> the vision tower.
        attention: core -> the attention module that scores.
        pool: (B, patches, C) -> (B, n, C), the mean over the patches that make one visual token.
    """

    def __init__(
        self,
        core: Any,
        tower: Callable[[Any], Any],
        attention: Callable[[Any], Any],
        pool: Callable[[Any, Tensor], Tensor],
    ):
        self.core, self.tower, self.attention, self.pool = core, tower, attention, pool

    def hook(self) -> list[RemovableHandle]:
        pre = {"with_kwargs": True}
        return [
            self.tower(self.core).register_forward_pre_hook(self.before_tower, **pre),
            self.attention(self.core).register_forward_pre_hook(self.before_attention, **pre),
            self.tower(self.core).register_forward_hook(self.after_tower),
        ]

    def before_tower(self, tower: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        _encoding.set(Encoding(kwargs))

    def before_attention(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        found = _encoding.get()
        if found is None or found.result is not None:
            return  # checkpointing computes the block again in the backward pass, on a GPU in another thread
        hidden = args[0] if args else kwargs["hidden_states"]
        others = {k: v for k, v in kwargs.items() if k != "hidden_states"}
        for scores, keys in received(attention, hidden, **others):
            found.scores.append(self.pool(self.core, scores[..., None])[..., 0])
            found.keys.append(self.pool(self.core, keys))

    def after_tower(self, tower: nn.Module, args: Any, output: Any) -> None:
        encoding().result = output


def merged_in_place(config: DuetConfig, encoded: Encoded, dynamic: bool = True) -> tuple[Tensor, Merge]:
    """(B, N, D): every retained token at its own place, an anchor's place holding its contextual token, zeros else.

    METHOD, "Stage 1", 7, encoders without CLS. Where the config is `proportional`, D + 1: with their sizes.
    """
    decided = merge(config, encoded, dynamic=dynamic)
    kept = decided.retained(encoded.features)
    if config.proportional:
        kept = with_sizes(kept, decided.sizes)
    places = decided.places[..., None].expand_as(kept)
    return kept.new_zeros(len(kept), encoded.tokens, kept.shape[2]).scatter(1, places, kept), decided
