"""Which visual tokens one prompt kept, and whether two ways of computing it decided alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..trace import DropTrace, ImageTrace, Trace


@dataclass
class Kept:
    """The decisions of one row: what stage 1 made of its images, what each drop kept, counted from its first token."""

    images: list[ImageTrace]
    drops: list[DropTrace]

    @classmethod
    def of(cls, trace: Trace | None, row: int = 0, first: int = 0, images: slice = slice(None)) -> Kept | None:
        """Row `row` of a trace, which has `first` tokens of padding and these of the encoded images."""
        if trace is None:
            return None
        drops = [
            DropTrace(d.layer, [i - first for i in d.kept], [i - first for i in d.ranked], d.scores)
            for d in trace.samples[row].drops
        ]
        return cls(trace.images[images], drops)


@dataclass
class Differs:
    """The first place where two ways decided differently.

    Attributes:
        places: how many tokens are kept in one way only.
        of: how many the first way kept there.
        where: "stage 1" or the drop layer.
        moved: the largest difference between the two ways in the scores of these tokens, of the score itself.
    """

    places: int
    of: int
    where: str
    moved: float

    def __str__(self) -> str:
        return f"{self.places} of {self.of} kept places differ at {self.where}, where scores differ by {self.moved:.2g}"


def compared(a: Kept | None, b: Kept | None) -> Differs | None:
    """Where two ways first decided differently; None where they did not."""
    if a is None and b is None:
        return None
    if a is None or b is None or len(a.images) != len(b.images) or len(a.drops) != len(b.drops):
        return Differs(1, 1, "the trace", math.inf)
    for one, other in zip(a.images, b.images, strict=True):
        if (one.dominant, one.anchors, one.clusters) != (other.dominant, other.anchors, other.clusters):
            places = len(set(_places(one)) ^ set(_places(other))) or 1
            pairs = list(zip(one.scores, other.scores, strict=False))
            return Differs(places, len(_places(one)), "stage 1", _moved(pairs, len(one.scores) == len(other.scores)))
    for drop, again in zip(a.drops, b.drops, strict=True):
        apart = set(drop.kept) ^ set(again.kept)
        if drop.layer != again.layer or apart:
            scores, others = (dict(zip(d.ranked, d.scores, strict=True)) for d in (drop, again))
            pairs = [(scores.get(i, math.nan), others.get(i, math.nan)) for i in apart]
            known = bool(pairs) and all(i in scores and i in others for i in apart)
            return Differs(len(apart), len(drop.kept), f"layer {drop.layer}", _moved(pairs, known))
    return None


def _places(image: ImageTrace) -> list[Any]:
    return [*image.dominant, *image.anchors]


def _moved(pairs: list[tuple[float, float]], known: bool) -> float:
    """Each difference relative to the larger of the two, which counts as at least a thousandth of the largest."""
    if not known:
        return math.inf
    least = max((abs(x) for pair in pairs for x in pair), default=0) / 1000
    return max((abs(x - y) / max(abs(x), abs(y), least) if x != y else 0.0 for x, y in pairs), default=0.0)
