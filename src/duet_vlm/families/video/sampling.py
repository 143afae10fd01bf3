"""Which frames of a video a model is shown: the rules of the stock video processors, as functions of its length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ...errors import DuetError


def starts(total: int, count: int) -> list[int]:
    """Starts of `count` equal parts."""
    return [i * total // count for i in range(count)]


def ends(total: int, count: int) -> list[int]:
    """Evenly from the first frame to the last."""
    return [int(i) for i in np.linspace(0, total - 1, count).round()]


def ends_down(total: int, count: int) -> list[int]:
    """The same, rounded down."""
    return [int(i) for i in np.linspace(0, total - 1, count)]


def middles(total: int, count: int) -> list[int]:
    """Middles of `count` equal parts."""
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


@dataclass(frozen=True)
class Sampling:
    """How many frames, and which.

    Attributes:
        places: which frames, from the video's frames and how many are wanted.
        count: how many; with `rate`, at most so many.
        rate: frames per second.
        minimum, maximum: bounds of what `rate` gives.
        multiple: what `rate` gives is a multiple of this.
        skip: seconds left out at both ends of a video that is longer than `count` x `rate` seconds and these.
        exact: `count` is a wish: a shorter video is refused, and `rate` does not count.
    """

    places: Callable[[int, int], list[int]] = starts
    count: int | None = None
    rate: float | None = None
    minimum: int = 1
    maximum: int = 768
    multiple: int = 1
    skip: float = 0.0
    exact: bool = False

    def __call__(self, total: int, rate: float) -> list[int]:
        """Indices of the frames, ascending.

        Args:
            total: frames of the video.
            rate: its frames per second.

        Raises:
            ValueError: a video with fewer frames than asked for.
        """
        if self.exact and self.count is not None and self.count > total:
            raise DuetError(f"{self.count} frames are more than the {total} of this video: ask for at most {total}.")
        count = self._count(total, rate)
        start, end = 0, total
        if self.skip and self.count and self.rate and total / rate - 2 * self.skip > self.count * self.rate:
            start, end = int(self.skip * rate), min(int(total - self.skip * rate) + 1, total)
        return [start + place for place in self.places(end - start, min(count, end - start))]

    def exactly(self, count: int) -> Sampling:
        """The same places, `count` of them."""
        return replace(self, count=count, exact=True)

    def _count(self, total: int, rate: float) -> int:
        if self.count is not None and (self.exact or self.rate is None):
            return min(self.count, total)
        wished = total / rate * (self.rate or rate)
        if self.count is not None:
            return max(1, min(round(wished), self.count, total))
        maximum = max(min(self.maximum, total) // self.multiple * self.multiple, 1)
        count = min(max(wished, self.minimum), maximum)
        return max(int(count // self.multiple) * self.multiple, 1)
