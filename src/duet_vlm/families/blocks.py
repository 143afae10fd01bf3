"""Which blocks of patches go into a tower, where some repeat a neighbour and are left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
        patches: of every image or frame, (rows, columns) bool, the kept patches, where they enter a tower row by row.
    """

    kept: list[Tensor]
    order: Tensor | None = None
    patches: list[Tensor] = field(default_factory=list)

    @cached_property
    def flat(self) -> Tensor:
        """(N,) bool, all images or frames one behind the other."""
        return torch.cat([kept.flatten() for kept in self.kept])

    @cached_property
    def counts(self) -> list[int]:
        """Kept blocks of each; this reads them on the host."""
        counts: list[int] = torch.stack([kept.sum() for kept in self.kept]).tolist()
        return counts

    @cached_property
    def all_kept(self) -> bool:
        return sum(self.counts) == len(self.flat)

    def filled(self, tokens: Tensor) -> Tensor:
        """(K, D) of the kept blocks -> (N, D), zeros where a block was left out."""
        return filled(tokens, self.flat)

    @cached_property
    def row_by_row(self) -> Tensor:
        """(n,) bool, `patches` of all, one behind the other."""
        return torch.cat([there.flatten() for there in self.patches])

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Of each image or frame, where all its blocks stand, and which of them are kept, (k,) long."""
        start = 0
        for kept in self.kept:
            yield slice(start, start + kept.numel()), kept.flatten().nonzero()[:, 0]
            start += kept.numel()


def filled(x: Tensor, there: Tensor) -> Tensor:
    """(k, D) of the places that (n,) `there` marks -> (n, D), zeros elsewhere."""
    places = there.nonzero()[:, 0].to(x.device)
    return x.new_zeros(len(there), x.shape[1]).index_copy(0, places, x)


def in_blocks(pixels: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """(rows * columns, channels, values) of patches row by row -> (rows, columns, patches, channels, values) of blocks.

    Rows and columns of patches that fill no block are left out.
    """
    rows, columns = (n // side for n in grid)
    squares: Tensor = pixels.unflatten(0, grid)[: rows * side, : columns * side]
    squares = squares.unflatten(1, (columns, side)).unflatten(0, (rows, side)).transpose(1, 2).flatten(2, 3)
    return squares


def patches_of(kept: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """(rows, columns) bool of blocks -> `grid` bool of their patches; those that are in no block stay."""
    there = torch.ones(grid, dtype=torch.bool, device=kept.device)
    squares = kept.repeat_interleave(side, 0).repeat_interleave(side, 1)
    there[: squares.shape[0], : squares.shape[1]] = squares
    return there
