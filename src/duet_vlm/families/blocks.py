"""Which blocks of patches go into a tower, where some repeat a neighbour and are left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass
class Blocks:
    """The blocks of one call of an encoder; a block is what becomes one visual token.

    Attributes:
        kept: of every image or frame, (rows, columns) bool.
        order: (K,) long, the place of each kept block, in raster order, among those in a tower that sorts them by
            windows; None for a tower that does not.
    """

    kept: list[Tensor]
    order: Tensor | None = None

    @cached_property
    def flat(self) -> Tensor:
        """(N,) bool, all images or frames one behind the other."""
        return torch.cat([kept.flatten() for kept in self.kept])

    @cached_property
    def counts(self) -> list[int]:
        """Kept blocks of each; this reads them on the host."""
        return torch.stack([kept.sum() for kept in self.kept]).tolist()  # type: ignore[no-any-return]

    @cached_property
    def all_kept(self) -> bool:
        return sum(self.counts) == len(self.flat)

    def filled(self, tokens: Tensor) -> Tensor:
        """(K, D) of the kept blocks -> (N, D), zeros where a block was left out."""
        return tokens.new_zeros(len(self.flat), tokens.shape[1]).index_put((self.places.to(tokens.device),), tokens)

    @cached_property
    def places(self) -> Tensor:
        """(K,) long, where the kept blocks stand."""
        return self.flat.nonzero()[:, 0]

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Of each image or frame, where all its blocks stand, and which of them are kept, (k,) long."""
        start = 0
        for kept in self.kept:
            yield slice(start, start + kept.numel()), kept.flatten().nonzero()[:, 0]
            start += kept.numel()
