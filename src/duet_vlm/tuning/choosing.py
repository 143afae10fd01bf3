"""Which setting is the cheapest that keeps what was asked, decided on answers that a function gives.

The questions are split by image. On the first part settings are compared: successive halving (Jamieson and Talwalkar
2016) asks few questions of many settings and many of few. Nothing that is found there is promised. It gives an order,
from the safest setting to the cheapest, in which the promise is tested on the other part, each at the full confidence,
until the first one fails; the last that passed is chosen. A wrong choice needs the first untrue promise of that order
to pass its test, so it happens at most as often as a single test errs (fixed-sequence testing, Maurer et al. 1995; with
an order from other data: Learn then Test, Angelopoulos et al. 2021, and Pareto testing, Laufer-Goldshtein et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, log2

import numpy as np

from .judged import Asked, Judged, Seen, point_of, seen_of

PART = 1 / 3  # of the questions, on which settings are compared
LEAST_QUESTIONS = 30  # of a first round
LONGEST = 6  # settings that are tested
FEWEST = 5  # settings that the last round compares, if there are as many that may do


Ask = Callable[[Sequence[str], Sequence[int]], Mapping[str, Judged]]


@dataclass
class Choice:
    """What came out.

    Attributes:
        chosen: the cheapest that passed; None for none, or where it costs as much as the full model.
        tested: what was tested, in order; all but the last have passed, and the last one if it is `chosen`.
        rounds: what was seen of every setting in every round.
        nearest: where none passed, the one whose bound came nearest.
    """

    chosen: Seen | None = None
    tested: list[Seen] = field(default_factory=list)
    rounds: list[list[Seen]] = field(default_factory=list)
    nearest: Seen | None = None


@dataclass(frozen=True)
class Parts:
    """The questions by their places: those that settings are compared on, in the order of asking, and the others."""

    first: list[int]
    second: list[int]

    @classmethod
    def of(cls, sources: Sequence[str], seed: int) -> Parts:
        """Split whole images at random."""
        images = list(dict.fromkeys(sources))
        order = [images[i] for i in np.random.default_rng(seed).permutation(len(images))]
        places: dict[str, list[int]] = {}
        for place, source in enumerate(sources):
            places.setdefault(source, []).append(place)
        first, second = list[int](), list[int]()
        for image in order:
            (first if len(first) < PART * len(sources) else second).extend(places[image])
        return cls(first, second)


def round_sizes(settings: int, questions: int) -> list[int]:
    """How many questions each round has asked when it is over: ever twice as many, up to all of them."""
    rounds = max(1, ceil(log2(max(2, settings))))
    sizes = [ceil(questions / 2**i) for i in reversed(range(rounds))]
    return [n for n in sizes if n >= min(LEAST_QUESTIONS, questions)]


def choose(
    names: Sequence[str],
    sources: Sequence[str],
    ask: Ask,
    asked: Asked,
    *,
    enough: Callable[[int], bool] = lambda rounds: False,
    most: Callable[[int], int | None] = lambda settings: None,
) -> Choice:
    """Choose the cheapest setting that keeps what was asked.

    Args:
        names: of the settings.
        sources: the image of every question.
        ask: `(names, places of questions) -> {name: Judged}`, without those that could not be asked.
        asked: what is to be kept.
        enough: told how many rounds were asked, whether no other is to be.
        most: told how many settings are to be tested, how many questions each of them may be asked; None for all. It
            must not look at answers to these questions.
    """
    parts, choice = Parts.of(sources, asked.seed), Choice()
    alive = list(names)
    for number, size in enumerate(round_sizes(len(names), len(parts.first))):
        places = parts.first[:size]
        judged = ask(alive, places)
        seen = [point_of(name, judged[name], asked) for name in alive]
        choice.rounds.append(seen)
        seen = [one for one in seen if one.upper >= asked.share]
        if not seen:
            break
        keep = seen if size == len(parts.first) else _better_half(seen, len(alive))
        alive = [one.name for one in keep]
        if enough(number + 1):
            break
    order = sequence(choice.rounds[-1], asked) if choice.rounds else []
    limit = most(len({name for name, _ in order})) if order else None
    places = parts.second[: len(parts.second) if limit is None else limit]
    for name, threshold in order:
        judged = ask([name], places)
        one = seen_of(name, judged[name], threshold, asked)
        choice.tested.append(one)
        if one.lower < asked.share:
            break
        choice.chosen = one
    if choice.chosen is not None and choice.chosen.cost >= 1:  # the full model costs no more
        choice.chosen = None
    if choice.chosen is None:
        candidates = choice.tested or [one for listed in choice.rounds for one in listed]
        choice.nearest = max(candidates, key=lambda one: one.lower, default=None)
    return choice


def sequence(seen: Sequence[Seen], asked: Asked) -> list[tuple[str, float]]:
    """What is tested, from the safest to the cheapest: (setting, threshold).

    With a guard, one setting at ever smaller thresholds. Without, the settings that no other beats in both cost and
    share, and in front of them the safest one: should the others have been lucky, it is the answer.
    """
    able = [one for one in seen if one.upper >= asked.share]
    if not able:
        return []
    if len(asked.thresholds) > 1:
        good = [one for one in able if one.share >= asked.share] or able
        best = min(good, key=lambda one: one.cost)
        return [(best.name, threshold) for threshold in asked.thresholds]
    front, safest = layers_of(able)[0], max(able, key=lambda one: (one.lower, one.cost))
    order = sorted({safest, *front}, key=lambda one: (-one.cost, one.name))
    return [(one.name, one.threshold) for one in order[-LONGEST:]]


def _better_half(seen: Sequence[Seen], settings: int) -> list[Seen]:
    """Half of the settings: those that the fewest others beat in both cost and share, and the safest one."""
    count = max(FEWEST, ceil(settings / 2))
    ranked = [one for layer in layers_of(seen) for one in sorted(layer, key=lambda one: one.cost)]
    kept, safest = ranked[:count], max(seen, key=lambda one: (one.lower, one.cost))
    return kept if safest in kept else [*kept[: count - 1], safest]


def layers_of(seen: Sequence[Seen]) -> list[list[Seen]]:
    """Peeled fronts: those that no other one beats, then those that no other one of the rest beats, and so on."""
    left, layers = list(seen), []
    while left:
        front = [one for one in left if not any(_beats(other, one) for other in left)]
        layers.append(front)
        left = [one for one in left if one not in front]
    return layers


def _beats(one: Seen, other: Seen) -> bool:
    better = one.cost <= other.cost and one.share >= other.share
    return better and (one.cost, -one.share) != (other.cost, -other.share)
