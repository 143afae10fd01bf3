"""Bounds of what is kept: exact where that is known, right as often as they say, and over images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from duet_vlm.tuning.bounds import lower_bound, upper_bound


def exact_lower(right: int, asked: int, confidence: float) -> float:
    """Clopper and Pearson: the share at which so many or more are right in one of 1 / (1 - confidence) cases."""
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        tail = sum(math.comb(asked, k) * share**k * (1 - share) ** (asked - k) for k in range(right, asked + 1))
        low, high = (share, high) if tail < 1 - confidence else (low, share)
    return low


@pytest.mark.parametrize(("right", "asked"), [(50, 50), (49, 50), (190, 200), (10, 40)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_of_single_questions_the_bound_is_that_of_clopper_and_pearson(
    right: int, asked: int, confidence: float
) -> None:
    kept = np.arange(asked) < right
    sources = [str(n) for n in range(asked)]
    bound = lower_bound(kept.astype(float), np.ones(asked), sources, confidence, seed=1, draws=40_000)
    assert bound == pytest.approx(exact_lower(right, asked, confidence), abs=0.002)


def test_it_is_the_quantile_of_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    sources = [str(n // 3) for n in range(60)]
    whole = rng.random(60) < 0.8
    kept = whole & (rng.random(60) < 0.9)
    worst = max(sum(w - k for s, w, k in zip(sources, whole * 1, kept * 1, strict=True) if s == o) for o in sources)
    draws = []
    rng = np.random.default_rng(7)
    for _ in range(4000):
        weight = {source: rng.exponential() for source in dict.fromkeys(sources)}
        ours = sum(weight[source] * k for source, k in zip(sources, kept, strict=True))
        full = sum(weight[source] * w for source, w in zip(sources, whole, strict=True)) + worst * rng.exponential()
        draws.append(ours / full)
    found = lower_bound(kept.astype(float), whole.astype(float), sources, 0.9, seed=3, draws=4000)
    assert found == pytest.approx(sorted(draws)[400], abs=0.006)


def test_the_true_share_is_below_the_bound_no_more_often_than_it_says() -> None:
    """500 sets of 300 questions about 100 images; an image that is lost is often lost for all of its questions."""
    rng, sources, wrong = np.random.default_rng(5), [str(n // 3) for n in range(300)], 0
    for trial in range(500):
        hard = np.repeat(rng.random(100) < 0.05, 3)
        whole = (rng.random(300) < 0.95).astype(float)
        kept = whole * ~(hard & (rng.random(300) < 0.6))
        wrong += lower_bound(kept, whole, sources, 0.9, seed=trial, draws=400) > 1 - 0.05 * 0.6
    assert wrong / 500 < 0.1 + 2 * math.sqrt(0.09 / 500)


def test_questions_of_one_image_are_no_more_than_one() -> None:
    kept = np.repeat(np.arange(40) < 36, 5).astype(float)
    alone = lower_bound(kept, np.ones(200), [str(n) for n in range(200)], 0.9, seed=0)
    together = lower_bound(kept, np.ones(200), [str(n // 5) for n in range(200)], 0.9, seed=0)
    assert together < alone - 0.01


def test_the_upper_bound_is_above_and_a_share_of_nothing_is_nothing() -> None:
    kept, whole = np.array([1.0, 0, 1, 1] * 20), np.ones(80)
    sources = [str(n) for n in range(80)]
    assert lower_bound(kept, whole, sources, 0.9, 0) < 0.75 < upper_bound(kept, whole, sources, 0.9, 0)
    assert lower_bound(np.zeros(80), np.zeros(80), sources, 0.9, 0) == 0
