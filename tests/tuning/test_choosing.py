"""How a setting is chosen: what is asked, in which order it is tested, and how often a promise is untrue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from duet_vlm.tuning.choosing import Parts, choose, layers_of, round_sizes
from duet_vlm.tuning.judged import Asked, Judged, seen_of

SOURCES = [str(n // 3) for n in range(900)]


class Population:
    """Settings whose true shares and costs are known; an answer is drawn once.

    Args:
        settings: name -> (true share, cost).
        seed: of the answers.
        margins: whether wrong answers have small leads.
    """

    def __init__(self, settings: Mapping[str, tuple[float, float]], seed: int, margins: bool = False):
        rng = np.random.default_rng(seed)
        self.costs, self.asked = {name: cost for name, (_, cost) in settings.items()}, Counter[str]()
        self.places = dict[str, list[int]]()
        self.kept = {name: rng.random(len(SOURCES)) < share for name, (share, _) in settings.items()}
        self.margins = {
            name: np.where(kept, rng.beta(8, 1, len(kept)), rng.beta(1, 3, len(kept)))
            for name, kept in (self.kept.items() if margins else ())
        }

    def ask(self, names: Sequence[str], places: Sequence[int]) -> dict[str, Judged]:
        for name in names:
            self.places.setdefault(name, []).extend(places)
        sources, ones = [SOURCES[place] for place in places], np.ones(len(places))
        return {
            name: Judged(
                self.kept[name][places].astype(float), ones, self.costs[name] * ones, ones, sources,
                self.margins[name][places] if self.margins else None,
            )
            for name in names
        }  # fmt: skip


LADDER = {f"{share:g}": (share, 0.9 * share**4) for share in (1.0, 0.995, 0.985, 0.96, 0.9, 0.8, 0.6, 0.4)}


def test_an_untrue_promise_is_as_rare_as_the_confidence_says_and_the_choice_is_cheap() -> None:
    chosen = Counter[str]()
    for seed in range(60):
        found = choose(list(LADDER), SOURCES, Population(LADDER, seed).ask, Asked(0.95, seed=seed)).chosen
        chosen["none" if found is None else found.name] += 1
    untrue = sum(n for name, n in chosen.items() if name != "none" and float(name) < 0.95)
    assert untrue <= 12  # 6 are expected at most; more than 12 of 60 come by chance once in 100
    assert chosen["0.985"] + chosen["0.96"] >= 48
    assert chosen["none"] <= 2


def test_a_setting_at_the_very_border_is_rarely_promised() -> None:
    border = {"safe": (1.0, 0.9), "border": (0.9499, 0.1)}
    chosen = Counter(
        choose(list(border), SOURCES, Population(border, seed).ask, Asked(0.95, seed=seed)).chosen.name  # type: ignore[union-attr]
        for seed in range(60)
    )
    assert chosen["border"] <= 12
    assert sum(chosen.values()) == 60


def test_what_is_promised_is_seen_on_other_images_than_what_was_compared() -> None:
    population = Population(LADDER, 1)
    choice = choose(list(LADDER), SOURCES, population.ask, Asked(0.95))
    parts = Parts.of(SOURCES, 0)
    assert sorted(parts.first + parts.second) == list(range(900))
    assert not {SOURCES[n] for n in parts.first} & {SOURCES[n] for n in parts.second}
    assert len(parts.first) == 300
    assert all(one.questions == len(parts.second) for one in choice.tested)
    tested = {one.name for one in choice.tested}
    for name in LADDER:
        assert set(parts.second).isdisjoint(population.places[name]) == (name not in tested)


def test_bad_settings_are_asked_few_questions() -> None:
    population = Population(LADDER, 2)
    choose(list(LADDER), SOURCES, population.ask, Asked(0.95))
    sizes = round_sizes(len(LADDER), 300)
    assert sizes == [75, 150, 300]
    for bad in ("0.4", "0.6", "0.8"):
        assert len(set(population.places[bad])) <= 75


def test_the_order_ends_with_the_first_that_fails_and_goes_from_the_costly_to_the_cheap() -> None:
    for seed in range(20):
        choice = choose(list(LADDER), SOURCES, Population(LADDER, seed).ask, Asked(0.95, seed=seed))
        costs = [one.cost for one in choice.tested]
        assert costs == sorted(costs, reverse=True)
        passed = [one.lower >= 0.95 for one in choice.tested]
        assert all(passed[:-1])
        last = [one for one, good in zip(choice.tested, passed, strict=True) if good]
        assert choice.chosen == (last[-1] if last else None)


def test_none_is_an_answer_with_the_nearest() -> None:
    poor = {"a": (0.9, 0.5), "b": (0.8, 0.2)}
    choice = choose(list(poor), SOURCES, Population(poor, 0).ask, Asked(0.99))
    assert choice.chosen is None
    assert not choice.tested
    assert choice.nearest is not None
    assert choice.nearest.name == "a"


def test_a_guard_keeps_what_the_setting_does_not_and_costs_what_is_asked_again() -> None:
    population = Population({"weak": (0.9, 0.1)}, 3, margins=True)
    thresholds = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0)
    choice = choose(["weak"], SOURCES, population.ask, Asked(0.97, thresholds=thresholds))
    chosen = choice.chosen
    assert chosen is not None
    assert 0 < chosen.threshold < 1
    places = Parts.of(SOURCES, 0).second
    kept, margins = population.kept["weak"][places], population.margins["weak"][places]
    again = [bool(margin < chosen.threshold) for margin in margins]
    agree = sum(bool(k) or a for k, a in zip(kept, again, strict=True)) / len(places)
    assert (chosen.share, chosen.again) == (pytest.approx(agree), pytest.approx(sum(again) / len(places)))
    assert chosen.cost == pytest.approx(0.1 + sum(again) / len(places))
    assert [one.threshold for one in choice.tested] == list(thresholds[: len(choice.tested)])


def test_what_costs_as_much_as_the_full_model_is_no_choice() -> None:
    population = Population({"weak": (0.2, 0.3)}, 3, margins=True)
    choice = choose(["weak"], SOURCES, population.ask, Asked(0.97, thresholds=(1.0, 0.9, 0.0)))
    assert choice.chosen is None
    assert choice.nearest is not None
    assert (choice.nearest.threshold, choice.nearest.cost) == (1.0, pytest.approx(1.3))


def test_a_time_limit_asks_less_and_never_looks() -> None:
    population = Population(LADDER, 4)
    choice = choose(
        list(LADDER), SOURCES, population.ask, Asked(0.9), enough=lambda rounds: rounds == 1, most=lambda settings: 100
    )
    assert len(choice.rounds) == 1
    assert {one.questions for one in choice.tested} == {100}


def test_fronts_are_peeled_as_by_hand() -> None:
    asked, ones = Asked(0.5), np.ones(100)
    shares = {"a": (1.0, 4), "b": (0.9, 3), "c": (0.9, 2), "d": (0.5, 1), "e": (0.4, 3)}
    seen = [
        seen_of(
            name, Judged((np.arange(100) < 100 * share) * 1.0, ones, cost * ones, ones, SOURCES[:100]), 0.0, asked
        )
        for name, (share, cost) in shares.items()
    ]  # fmt: skip
    assert [{one.name for one in layer} for layer in layers_of(seen)] == [{"a", "c", "d"}, {"b"}, {"e"}]
