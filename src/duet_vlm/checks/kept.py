"""Which visual tokens one prompt kept, and whether two ways of computing it decided alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..engine.trace import DropTrace, ImageTrace, Trace


@dataclass
class Kept:
    """The decisions of one row: what stage 1 made of its images, what each drop kept, counted from its first token."""

    images: list[ImageTrace]
    drops: list[DropTrace]

    @classmethod
    def of(cls, trace: Trace | None, row: int = 0, padding: int = 0, images: slice = slice(None)) -> Kept | None:
        """Row `row` of a trace, behind `padding` tokens of padding, with these of the encoded images."""
        if trace is None:
            return None
        drops = [
            DropTrace(d.layer, [i - padding for i in d.kept], [i - padding for i in d.ranked], d.scores)
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
        apart: how far these tokens' scores are apart, of the score itself: between the two ways, and in each way from
            the nearest of those that it chose instead. Where tokens are the best by score, the second is at most twice
            the first. 0 where they were chosen as a set, one by what the others are, which has no scores.
    """

    places: int
    of: int
    where: str
    apart: float

    def __str__(self) -> str:
        which = f"where scores are {self.apart:.2g} apart" if self.apart else "where no score decides"
        return f"{self.places} of {self.of} kept places differ at {self.where}, {which}"


def compared(a: Kept | None, b: Kept | None) -> Differs | None:
    """Where two ways first decided differently; None where they did not."""
    if a is None and b is None:
        return None
    if a is None or b is None or len(a.images) != len(b.images) or len(a.drops) != len(b.drops):
        return Differs(1, 1, "the trace", math.inf)
    for one, other in zip(a.images, b.images, strict=True):
        if (one.dominant, one.anchors, one.clusters) != (other.dominant, other.anchors, other.clusters):
            places = len(set(_places(one)) ^ set(_places(other))) or 1
            return Differs(places, len(_places(one)), "stage 1", _between(one.scores, other.scores))
    for drop, again in zip(a.drops, b.drops, strict=True):
        if drop.layer != again.layer or drop.kept != again.kept:
            apart = set(drop.kept) ^ set(again.kept)
            return Differs(len(apart), len(drop.kept), f"layer {drop.layer}", _apart(drop, again))
    return None


def _places(image: ImageTrace) -> list[int]:
    return [*image.dominant, *image.anchors]


def _apart(a: DropTrace, b: DropTrace) -> float:
    """See `Differs`; 0 for sets, infinite where a token was not ranked, or has no counterpart."""
    if all(score in (0, 1) for d in (a, b) for score in d.scores):
        return 0.0
    scores, others = (dict(zip(d.ranked, d.scores, strict=True)) for d in (a, b))
    first, second = sorted(set(a.kept) - set(b.kept)), sorted(set(b.kept) - set(a.kept))
    both = first + second
    if not first or not second or not all(i in scores and i in others for i in both):
        return math.inf
    apart = _between([scores[i] for i in both], [others[i] for i in both])
    for known, chosen, instead in ((scores, first, second), (others, second, first)):
        for i in chosen:
            apart = max(apart, min(_between([known[i]], [known[j]]) for j in instead))
    return apart


def _between(scores: list[float], others: list[float]) -> float:
    """The largest difference, of the larger of the two, which counts as at least a thousandth of the largest of all."""
    if len(scores) != len(others) or not all(map(math.isfinite, [*scores, *others])):
        return math.inf
    minimum = max((abs(x) for x in [*scores, *others]), default=0) / 1000
    pairs = zip(scores, others, strict=True)
    return max((abs(x - y) / max(abs(x), abs(y), minimum) for x, y in pairs if x != y), default=0.0)
