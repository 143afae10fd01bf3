"""Encoders without CLS: the attention that a token receives is the score. docs/method.md, 1.1.

It is taken while the scoring layer's attention is called, a segment (image, frame) at a time and streamed over query
blocks, so no n x n map is made and nothing of that size outlives the call.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..host.attention import received
from . import encoding


class Stage1(encoding.Stage1):
    """Taps on the tower of a family whose attention is called segment by segment."""

    @property
    def tower(self) -> Any:
        raise NotImplementedError

    @property
    def attention(self) -> Any:
        """The attention module that scores."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        """(B, patches, C) -> (B, n, C), the mean over the patches that make one visual token."""
        raise NotImplementedError

    def taps(self) -> list[Any]:
        pre = {"with_kwargs": True}
        return [
            self.tower.register_forward_pre_hook(self.before_tower, **pre),
            self.attention.register_forward_pre_hook(self.before_attention, **pre),
            self.tower.register_forward_hook(self.after_tower),
        ]

    def before_tower(self, tower: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        call = self.call()
        if call is not None:
            call.given = kwargs

    def before_attention(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        call = self.call()
        if call is None:
            return  # checkpointing computes the block again in the backward pass, on a GPU in another thread
        hidden = args[0] if args else kwargs["hidden_states"]
        others = {k: v for k, v in kwargs.items() if k != "hidden_states"}
        for scores, keys in received(attention, hidden, **others):
            call.scores.append(self.pool(scores[..., None])[..., 0])
            call.keys.append(self.pool(keys))

    def after_tower(self, tower: nn.Module, args: Any, output: Any) -> None:
        raise NotImplementedError
