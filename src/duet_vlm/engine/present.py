"""The tokens of a prompt that are present between two drops: one set, seen as places, slots and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..tensors.tokens import fill_back, pack, select, slots, take


@dataclass(frozen=True, eq=False)
class Present:
    """The n tokens of S that are still there.

    Attributes:
        visual: (B, S) bool, the visual tokens of the whole prompt.
        kept: (B, n) long places in the prompt, -1 for a hole; None where nothing was dropped yet.
        holes: whether `kept` has any.
    """

    visual: Tensor
    kept: Tensor | None = None
    holes: bool = False

    @cached_property
    def places(self) -> Tensor:
        """(B, n) long places in the prompt, -1 for a hole."""
        if self.kept is not None:
            return self.kept
        batch, length = self.visual.shape
        return torch.arange(length, device=self.visual.device).expand(batch, -1)

    @cached_property
    def padding_mask(self) -> Tensor | None:
        """(B, n) long, 0 at a hole, as linear layers take it; None without holes. Padding went with the first drop."""
        return (self.places >= 0).long() if self.holes else None

    @property
    def count(self) -> int:
        """n, holes included."""
        return self.visual.shape[1] if self.kept is None else self.kept.shape[1]

    @cached_property
    def slots(self) -> Tensor:
        """(B, S) long, where each token of the prompt stands among those present, -1 where it is gone."""
        return slots(self.places, self.visual.shape[1])

    @cached_property
    def _gone(self) -> Tensor:
        """(B, S) bool, the visual tokens that are not there any more."""
        return self.visual & (self.slots < 0)

    @cached_property
    def removed(self) -> Tensor:
        """(B, 1) long, how many visual tokens each row has lost."""
        if self.kept is None:
            return torch.zeros_like(self.visual[:, :1], dtype=torch.long)
        return self._gone.sum(1, keepdim=True)

    def removed_before(self) -> Tensor:
        """Count the visual tokens that are gone before each present token: (B, n) long."""
        return take(self._gone.cumsum(1), self.places)

    def flags(self, x: Tensor) -> Tensor:
        """Take the present tokens' flags or numbers: (B, S) -> (B, n). A hole gets False or 0."""
        return x if self.kept is None else take(x, self.kept).masked_fill(self.kept < 0, 0)

    def vectors(self, x: Tensor) -> Tensor:
        """Take the present tokens' vectors: (B, S, D) -> (B, n, D). A hole repeats the first token."""
        return x if self.kept is None else take(x, self.kept)

    def filled(self, x: Tensor) -> Tensor:
        """Give the present tokens' vectors the full length, by `tokens.fill_back`: (B, n, D) -> (B, S, D).

        Where layers that borrow keys saw the last q tokens alone, x is (B, q, D), and what is before them is void.
        """
        return fill_back(x, self.places[:, -x.shape[1] :], self.visual.shape[1])

    def find(self, places: Tensor) -> Tensor:
        """Find tokens at places (B, q) of the prompt among those present: (B, q) long. -1 stays; none may be gone."""
        return places if self.kept is None else take(self.slots, places).masked_fill(places < 0, -1)

    def narrowed(self, keep: Tensor, holes_right: bool) -> tuple[Tensor, Present]:
        """Keep a part of the present tokens; returns its indices (B, m) long among those present now, and the part.

        Args:
            keep: (B, n) bool.
            holes_right: whether holes stand at the end, as padding does.
        """
        index, holes = pack(keep, holes_right)
        kept = index if self.kept is None else select(self.kept, index)
        return index, Present(self.visual, kept, holes)

    def to(self, device: torch.device) -> Present:
        """Return the same on another device."""
        return Present(self.visual.to(device), None if self.kept is None else self.kept.to(device), self.holes)
