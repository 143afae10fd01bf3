"""Cosines between the tokens of an image for a greedy selection: from a map, or computed when they are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .streamed import exact


class Rows:
    """Rows of the map of B images, which is held or not.

    Args:
        direction: (B, N, D) unit vectors or zeros.
        mapped: whether to hold the map.
        room: how many numbers to compute at a time without one.
    """

    def __init__(self, direction: Tensor, mapped: bool, room: int):
        self.direction = direction
        self.per_block = max(1, room // max(1, direction.shape[0] * direction.shape[1]))
        self.map = _map(direction) if mapped else None

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows: their places, and (B, n, N) of a part of them at a time."""
        tokens = self.direction.shape[1]
        if self.map is not None:
            yield slice(0, tokens), self.map
            return
        for start in range(0, tokens, self.per_block):
            part = slice(start, start + self.per_block)
            yield part, _cosines(self.direction[:, part], self.direction)

    def of(self, places: Tensor) -> Tensor:
        """(B, N) the row of one token of every image, at places (B, 1)."""
        x = self.direction if self.map is None else self.map
        found = x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
        return (_cosines(found, self.direction) if self.map is None else found)[:, 0]

    def nearest(self) -> Tensor:
        """(B, N) the cosine of every token to the other one that is nearest to it; -1 where there is no other."""
        found = []
        for part, rows in self.blocks():
            own = torch.arange(self.direction.shape[1], device=rows.device)[part, None].expand(len(rows), -1, 1)
            found.append(rows.scatter(2, own, -1).amax(-1))
        return torch.cat(found, dim=1)


class HostRows:
    """Rows of one image, as arrays of numpy on the host."""

    def __init__(self, rows: Rows, image: int):
        self.direction, self.per_block = rows.direction[image], rows.per_block
        self.map = None if rows.map is None else rows.map[image].cpu().numpy()

    def of(self, place: int) -> NDArray[Any]:
        """(N,) the row of a token, not to be changed."""
        row: NDArray[Any] = self.at(np.array([place]))[0] if self.map is None else self.map[place]
        return row

    def at(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """(n, N) copies of the rows at (n,) places."""
        if self.map is not None:
            return self.map.take(places, 0)
        asked = self.direction[torch.from_numpy(places).to(self.direction.device)]
        return _cosines(asked[None], self.direction[None])[0].cpu().numpy()

    def parts(self, places: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Places, as many at a time as fit a block."""
        for start in range(0, len(places), self.per_block):
            yield places[start : start + self.per_block]


def _map(direction: Tensor) -> Tensor:
    """(B, N, N) cosines. On a CPU most of what is below the diagonal is copied from above: a third less to compute."""
    batch, tokens, _ = direction.shape
    parts = 4 if direction.device.type == "cpu" else 1
    found = direction.new_empty(batch, tokens, tokens)
    for start, end in itertools.pairwise(tokens * part // parts for part in range(parts + 1)):
        found[:, start:end, start:] = _cosines(direction[:, start:end], direction[:, start:])
        found[:, end:, start:end] = found[:, start:end, end:].transpose(1, 2)
    return found


def _cosines(left: Tensor, right: Tensor) -> Tensor:
    """(B, n, N) of (B, n, D) and (B, N, D); rounding does not take them beyond 1."""
    with exact(left.device):
        return (left @ right.transpose(1, 2)).clamp_(-1, 1)
