"""The tokens of a prompt that are present between two drops: one set, seen as places, slots and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..tensors.tokens import pack, select, slots, take


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
        """(B, n) long, how many visual tokens are gone before each one."""
        return take(self._gone.cumsum(1), self.places)

    def flags(self, x: Tensor) -> Tensor:
        """(B, S) flags or numbers of the prompt -> (B, n) those present; a hole is False or 0."""
        return x if self.kept is None else take(x, self.kept).masked_fill(self.kept < 0, 0)

    def vectors(self, x: Tensor) -> Tensor:
        """(B, S, D) of the prompt -> (B, n, D) those present; a hole repeats the first token."""
        return x if self.kept is None else take(x, self.kept)

    def find(self, places: Tensor) -> Tensor:
        """(B, q) long, where the tokens at these places of the prompt stand; -1 stays, and none of them is gone."""
        return places if self.kept is None else take(self.slots, places).masked_fill(places < 0, -1)

    def narrowed(self, keep: Tensor, holes_right: bool) -> tuple[Tensor, Present]:
        """The part that `keep` (B, n) bool marks, behind its (B, m) long indices among those present now.

        Args:
            keep: (B, n) bool.
            holes_right: whether holes stand at the end, as padding does.
        """
        index, holes = pack(keep, holes_right)
        kept = index if self.kept is None else select(self.kept, index)
        return index, Present(self.visual, kept, holes)

    def to(self, device: torch.device) -> Present:
        """The same on another device."""
        return Present(self.visual.to(device), None if self.kept is None else self.kept.to(device), self.holes)
