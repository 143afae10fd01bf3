"""What a decoder layer is given in the place of mask and rotary embeddings of the full sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..tensors.tokens import take
from .cache import Held, PrunedLayer

Rope = tuple[Tensor, Tensor] | Tensor  # cosines and sines, or complex numbers: (B, n, d) each


def changed(rope: Rope, change: Callable[[Tensor], Tensor]) -> Rope:
    """Do the same to cosines and sines, or to the complex numbers in their place."""
    return change(rope) if isinstance(rope, Tensor) else (change(rope[0]), change(rope[1]))


@dataclass(frozen=True, eq=False)
class Restriction:
    """What the layers of one segment get in the place of what belongs to the full sequence.

    n tokens are worked on, and attend to m: those of a cache that is there before, and themselves.

    Attributes:
        before: what the layer's cache holds already.
        after: what it holds once the layer has run.
        stock: the mask and the rotary embeddings of the full sequence, which this was made from.
        mask: as the layer takes it: (B, 1, n, m), (B, m) for flash attention, or None for plain causal attention.
        rope: rotary embeddings of the n tokens.
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

        def longer(x: Tensor) -> Tensor:
            return torch.cat([x, x[:, -1:]], dim=1)

        positions = None if self.positions is None else longer(self.positions)
        return {"position_embeddings": changed(self.rope, longer), "position_ids": positions}

    def told(self, index: Tensor | None = None) -> dict[str, Any]:
        """Say to an attention module where its tokens stand: all n of them, or those at `index`, (B, q) long."""

        def part(x: Tensor) -> Tensor:
            return x if index is None else take(x, index)

        rope = {"position_embeddings": changed(self.rope, part)}
        return rope if self.positions is None else rope | {"position_ids": part(self.positions)}

    def give(self, kwargs: dict[str, Any], stored: PrunedLayer | None) -> None:
        """Give it to a layer through its keyword arguments, and tell the layer's cache what it will hold."""
        if stored is not None:
            stored.coming = self.after
        if not self.whole:
            kwargs["attention_mask"], kwargs["position_embeddings"] = self.mask, self.rope
            kwargs["position_ids"] = self.positions
