"""Which tokens each stage of a step computes: counts, places and row starts, from numbers on the host alone.

A step of vLLM runs the tokens of many requests in one row, one request behind the other. A stage is a run of decoder
layers between two drops: stage 0 has every token, stage g those that are left after drop g. How many are left is known
before the first layer runs, so all that attention is told of a stage can be made then; which ones is decided inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One request in one step.

    Attributes:
        computed: how many of its tokens earlier steps have computed.
        scheduled: how many this step computes.
        removed: for every drop, how many visual tokens of its prompt are gone behind it.
        enters: whether this step computes its prompt, so that its visual tokens are dropped in it.
    """

    computed: int
    scheduled: int
    removed: Sequence[int]
    enters: bool


@dataclass(frozen=True)
class Stage:
    """What one stage of a step computes.

    Attributes:
        starts: (R + 1,) where the tokens of each request start among those present.
        lengths: (R,) tokens of each request that are computed, with those that earlier steps have stored.
        rows: (N,) the request of each token present.
        places: (N,) where each token stands among those of its request that are left; its slot in the KV cache.
    """

    starts: Ints
    lengths: Ints
    rows: Ints
    places: Ints

    @property
    def tokens(self) -> int:
        """N, how many are present."""
        return int(self.starts[-1])

    @property
    def longest_query(self) -> int:
        """The most tokens that one request computes."""
        return int(np.diff(self.starts).max(initial=0))


def stages_of(rows: Sequence[Row], drops: int) -> list[Stage]:
    """Stage 0, and one behind every drop.

    Tokens that are left stand in the first places of their request, without gaps. So what later steps append stands
    right behind them, and a request that computes one token a step needs to know only how many are gone.

    Args:
        rows: the requests of the step, in the order of their tokens.
        drops: how many drops there are, which is the length of every `Row.removed`.
    """
    count = len(rows)
    computed = np.fromiter((row.computed for row in rows), np.int64, count)
    scheduled = np.fromiter((row.scheduled for row in rows), np.int64, count)
    enters = np.fromiter((row.enters for row in rows), np.bool_, count)
    removed = np.zeros((drops + 1, count), np.int64)
    for number, row in enumerate(rows):
        removed[1:, number] = row.removed
    return [_stage(computed + scheduled - gone, scheduled - gone * enters) for gone in removed]


def _stage(lengths: Ints, present: Ints) -> Stage:
    starts = np.concatenate([np.zeros(1, np.int64), present.cumsum()])
    rows = np.repeat(np.arange(len(present)), present)
    places = np.arange(starts[-1]) + (lengths - present - starts[:-1])[rows]
    return Stage(starts, lengths, rows, places)
