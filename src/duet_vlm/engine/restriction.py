"""What a decoder layer is given in the place of mask and rotary embeddings of the full sequence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..tensors.tokens import take
from .cache import Held, PrunedLayer

Rope = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Restriction:
    """What the layers of one segment get in the place of what belongs to the full sequence.

    n tokens are worked on, and attend to m: those of a cache that is there before, and themselves.

    Attributes:
        before: what the layer's cache holds already.
        after: what it holds once the layer has run.
        stock: the mask and the rotary embeddings of the full sequence, which this was made from.
        mask: as the layer takes it: (B, 1, n, m), (B, m) for flash attention, or None for plain causal attention.
        rope: (B, n, d) cosines and sines.
        whole: whether nothing is missing and nothing weighs more, so that the layer gets what stock gives it.
        positions: (B, n) long, of the decoders whose attention scales queries by them. None for all others: flash
            attention would take the gaps for packed sequences.
    """

    before: Held
    after: Held
    stock: tuple[Any, Any]
    mask: Any
    rope: Rope
    whole: bool = False
    positions: Tensor | None = None

    @cached_property
    def with_filler(self) -> dict[str, Any]:
        """What `told` says with the last token twice, n + 1 of them: see `filler`."""
        cos, sin = (torch.cat([one, one[:, -1:]], dim=1) for one in self.rope)
        positions = self.positions
        return {
            "position_embeddings": (cos, sin),
            "position_ids": None if positions is None else torch.cat([positions, positions[:, -1:]], dim=1),
        }

    def told(self, index: Tensor | None = None) -> dict[str, Any]:
        """Say to an attention module where its tokens stand: all n of them, or those at `index`, (B, q) long."""
        cos, sin = self.rope if index is None else (take(one, index) for one in self.rope)
        if self.positions is None:
            return {"position_embeddings": (cos, sin)}
        positions = self.positions if index is None else take(self.positions, index)
        return {"position_embeddings": (cos, sin), "position_ids": positions}

    def suits(self, before: Held, stock: tuple[Any, Any]) -> bool:
        """Tell whether it was made from these very objects."""
        return self.stock[0] is stock[0] and self.stock[1] is stock[1] and self.before.is_same(before)

    def give(self, kwargs: dict[str, Any], stored: PrunedLayer | None) -> None:
        """Give it to a layer through its keyword arguments, and tell the layer's cache what it will hold."""
        if stored is not None:
            stored.coming = self.after
        if not self.whole:
            kwargs["attention_mask"], kwargs["position_embeddings"] = self.mask, self.rope
            kwargs["position_ids"] = self.positions
