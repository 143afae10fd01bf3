"""Kept places that differ between two ways: rounding, or a fault."""

from __future__ import annotations

import pytest
import zoo
from check_cases import (
    BATCH,
    applied,
    broken,
    checked,
    decoder,
    note,
)
from torch import Tensor

from duet_vlm import Drop, DuetConfig
from duet_vlm.checks import alike, kept
from duet_vlm.engine import dropping
from duet_vlm.engine.trace import DropTrace, ImageTrace


def drop(kept_places: list[int], scores: list[float]) -> kept.Kept:
    return kept.Kept([], [DropTrace(2, kept_places, list(range(len(scores))), scores)])


def test_kept_places_that_differ_tell_how_far_their_scores_moved() -> None:
    a, b = drop([0, 1], [0.5, 0.300, 0.299, 0.1]), drop([0, 2], [0.5, 0.299, 0.302, 0.1])
    found = kept.compared(a, b)
    assert found is not None and (found.places, found.of, found.where) == (2, 2, "layer 2")
    assert found.apart == pytest.approx(0.003 / 0.302)
    assert kept.compared(a, a) is None
    assert kept.compared(a, None).apart == float("inf")  # type: ignore[union-attr]


def test_kept_places_that_are_not_the_best_by_score_are_far_apart_though_no_score_moved() -> None:
    scores = [0.5, 0.3, 0.2, 0.1]
    found = kept.compared(drop([0, 1], scores), drop([0, 3], scores))
    assert found is not None and found.apart == pytest.approx(0.2 / 0.3)
    fewer = kept.compared(drop([0, 1], scores), drop([0], scores))
    assert fewer is not None and fewer.apart == float("inf")


def test_sets_that_differ_have_no_scores_to_be_apart() -> None:
    found = kept.compared(drop([0, 1], [1, 1, 0, 0]), drop([0, 3], [1, 0, 0, 1]))
    assert found is not None and (found.places, found.apart) == (2, 0)
    assert str(found) == "2 of 2 kept places differ at layer 2, where no score decides"


def test_every_promise_holds_for_sets() -> None:
    for ranking in ("tops", "cdpruner"):
        config = DuetConfig(dominant=12, merging="scope", drops=[Drop(2, 0.5), Drop(4, 0.25)], ranking=ranking)
        report = checked(zoo.build("llava"), config=config)
        assert report.holds, str(report)


def test_stage_1_that_merges_otherwise_differs_too() -> None:
    one, other = (ImageTrace([0.4, 0.3, 0.2, 0.1], [0], [1], [members]) for members in ([2], [2, 3]))
    found = kept.compared(kept.Kept([one], []), kept.Kept([other], []))
    assert found is not None and found.where == "stage 1" and found.apart == 0


def test_places_tipped_by_rounding_are_compared_where_no_score_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bfloat16 ranking that is tipped in batches alone: a flip, not a fault; with a fault beside it, a fault."""
    real = dropping.ranking.top_per_span

    def tipped(scores: Tensor, spans: Tensor, limits: Tensor) -> Tensor:
        keep = real(scores, spans, limits)
        if len(keep) == 3 and not tipped.blind:  # type: ignore[attr-defined]
            for row in range(2):  # the last kept one and the next best change places
                order = scores[row].masked_fill(spans[row] == 0, -1).argsort(descending=True)
                last, following = order[keep[row].sum() - 1], order[keep[row].sum()]
                keep[row, last], keep[row, following] = False, True
        return keep

    tipped.blind = False  # type: ignore[attr-defined]
    monkeypatch.setattr(dropping.ranking, "top_per_span", tipped)
    asked = alike.blind

    def blind(config: DuetConfig) -> DuetConfig:
        tipped.blind = True  # type: ignore[attr-defined]
        return asked(config)

    monkeypatch.setattr(alike, "blind", blind)
    monkeypatch.setattr(kept, "_apart", lambda a, b: 1e-9)
    report = checked(zoo.build("llava"))
    assert report.holds, str(report)
    assert "compared with places that depend on no score" in note(report, BATCH)
    tipped.blind = False  # type: ignore[attr-defined]
    model = zoo.build("llava")
    decoder(model).norm.register_forward_hook(lambda m, a, out: out * (1.01 if len(out) == 3 and applied(model) else 1))
    assert BATCH in broken(checked(model))
