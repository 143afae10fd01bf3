"""Paired bootstrap intervals over images."""

from __future__ import annotations

import numpy as np
import pytest

from duet_vlm.evaluation.statistics import difference, resampled_means, retained


def drawn(questions: int = 400, seed: int = 0) -> np.ndarray:
    """A full model of 90% and a run that loses a tenth of what it had right."""
    rng = np.random.default_rng(seed)
    full = (rng.random(questions) < 0.9).astype(float)
    return np.stack([full, full * (rng.random(questions) < 0.9)])


def names(questions: int, per_image: int = 1) -> list[str]:
    return [f"image {i // per_image}" for i in range(questions)]


def test_the_full_model_retains_all_of_itself() -> None:
    scores = drawn()
    found = retained(scores, resampled_means(scores, names(400), 0))
    assert found[0] == (100.0, [100.0, 100.0])
    share, interval = found[1]
    assert share == pytest.approx(100 * scores[1].mean() / scores[0].mean())
    assert interval is not None and interval[0] < share < interval[1] < 100


def test_pairs_make_it_narrower() -> None:
    scores = drawn()
    means = resampled_means(scores, names(400), 0)
    interval = retained(scores, means)[1][1]
    assert interval is not None and means is not None
    # resampled apart, the full model's own luck comes on top
    apart = 100 * means[:, 1] / np.roll(means[:, 0], 1)
    low, high = np.percentile(apart, (2.5, 97.5))
    assert interval[1] - interval[0] < high - low


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(60):
        scores = drawn(300, seed)
        interval = retained(scores, resampled_means(scores, names(300), seed, draws=400))[1][1]
        assert interval is not None
        held += interval[0] <= 90 <= interval[1]
    assert held >= 50


def test_questions_of_one_image_share_its_luck() -> None:
    rng = np.random.default_rng(1)
    lucky = np.repeat(rng.random(50) < 0.7, 8).astype(float)  # all questions of an image alike
    scores = np.stack([np.ones(400), lucky])
    single = retained(scores, resampled_means(scores, names(400), 0))[1][1]
    grouped = retained(scores, resampled_means(scores, names(400, 8), 0))[1][1]
    assert single is not None and grouped is not None
    assert grouped[1] - grouped[0] > 2 * (single[1] - single[0])


def test_one_seed_one_interval() -> None:
    scores = drawn()
    once, again, other = (resampled_means(scores, names(400), seed) for seed in (3, 3, 4))
    assert once is not None and again is not None and other is not None
    assert np.array_equal(once, again) and not np.array_equal(once, other)


def test_images_of_different_sizes_count_by_questions() -> None:
    # nine images of one question, right, and one of three, wrong: drawn k times, it is 3k of 10 + 2k questions
    scores = np.array([[1.0] * 12, [1.0] * 9 + [0.0] * 3])
    means = resampled_means(scores, [*"abcdefghi", *"jjj"], 0, draws=200)
    assert means is not None
    assert set(means[:, 1].round(6)) <= {round((10 - k) / (10 + 2 * k), 6) for k in range(11)}
    assert len(set(means[:, 1])) > 3


@pytest.mark.parametrize("images", [1, 3, 9])
def test_below_ten_images_there_is_no_interval(images: int) -> None:
    scores = drawn(90)
    sources = [f"image {i % images}" for i in range(90)]
    means = resampled_means(scores, sources, 0)
    share = pytest.approx(100 * scores[1].mean() / scores[0].mean())
    assert retained(scores, means) == [(100.0, None), (share, None)]
    assert difference(scores, means, 1, 0) == (pytest.approx(100 * (scores[1] - scores[0]).mean()), None)
    assert resampled_means(scores, [f"image {i % 10}" for i in range(90)], 0) is not None


def test_difference_in_points() -> None:
    scores = drawn()
    means = resampled_means(scores, names(400), 0)
    assert means is not None
    points, (low, high) = difference(scores, means, 1, 0)
    assert points == pytest.approx(100 * (scores[1] - scores[0]).mean())
    assert low < points < high < 0
    assert difference(scores, means, 0, 0) == (0.0, [0.0, 0.0])


def test_nothing_retained_of_nothing() -> None:
    scores = np.zeros((2, 5))
    assert retained(scores, resampled_means(scores, names(5), 0)) == [(None, None)] * 2
