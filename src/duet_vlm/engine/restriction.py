"""What a decoder layer is given in the place of mask and rotary embeddings of the full sequence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

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
    """

    before: Held
    after: Held
    stock: tuple[Any, Any]
    mask: Any
    rope: Rope
    whole: bool = False

    @cached_property
    def rope_with_filler(self) -> Rope:
        """(B, n + 1, d), the last token twice: see `filler`."""
        cos, sin = (torch.cat([one, one[:, -1:]], dim=1) for one in self.rope)
        return cos, sin

    def give(self, kwargs: dict[str, Any], stored: PrunedLayer | None) -> None:
        """Give it to a layer through its keyword arguments, and tell the layer's cache what it will hold."""
        if stored is not None:
            stored.coming = self.after
        if not self.whole:
            kwargs["attention_mask"], kwargs["position_embeddings"] = self.mask, self.rope
            kwargs["position_ids"] = None  # flash attention would take the gaps for packed sequences
