"""Paired bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 2000
CHUNK = 100  # draws at a time, to bound memory
LEVEL = (2.5, 97.5)
LEAST_SOURCES = 10  # resamples of fewer images say little: of one image they are all alike


def resampled_means(scores: np.ndarray, sources: Sequence[str], seed: int, draws: int = DRAWS) -> np.ndarray | None:
    """Means of every run in bootstrap resamples of the images, the same resamples for all runs.

    Questions about one image share its luck, so whole images are drawn, with replacement (a cluster bootstrap).

    Args:
        scores: (runs, questions), 0 to 1.
        sources: the image of each question.
        seed: of the resampling.
        draws: number of resamples.

    Returns:
        (draws, runs) float64; None for fewer than `LEAST_SOURCES` images.
    """
    _, cluster = np.unique(np.asarray(sources), return_inverse=True)
    clusters = int(cluster.max()) + 1
    if clusters < LEAST_SOURCES:
        return None
    sums = np.stack([np.bincount(cluster, weights=row, minlength=clusters) for row in scores])
    sizes = np.bincount(cluster, minlength=clusters)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, draws, CHUNK):
        count = min(CHUNK, draws - start)
        times = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=count)
        means.append((times @ sums.T) / (times @ sizes)[:, None])
    return np.concatenate(means)


def retained(scores: np.ndarray, means: np.ndarray | None) -> list[tuple[float | None, list[float] | None]]:
    """Accuracy in percent of the first run's, with its 95% interval, for every run; None where that one is 0.

    Without resamples there is no interval.

    Args:
        scores: (runs, questions), 0 to 1.
        means: (draws, runs), of `resampled_means`.
    """
    accuracy = scores.mean(axis=1)
    if not accuracy[0]:
        return [(None, None)] * len(scores)
    shares = [100 * float(mean / accuracy[0]) for mean in accuracy]
    if means is None:
        return [(share, None) for share in shares]
    # few questions may be drawn so that the full model has none right
    possible = means[means[:, 0] > 0]
    intervals = np.percentile(100 * possible / possible[:, :1], LEVEL, axis=0)
    return [(share, [float(low), float(high)]) for share, low, high in zip(shares, *intervals, strict=True)]


def difference(scores: np.ndarray, means: np.ndarray | None, one: int, other: int) -> tuple[float, list[float] | None]:
    """Accuracy of run `one` minus that of run `other` in percentage points, with its 95% interval (paired), if any."""
    accuracy = scores.mean(axis=1)
    points = 100 * float(accuracy[one] - accuracy[other])
    if means is None:
        return points, None
    low, high = np.percentile(100 * (means[:, one] - means[:, other]), LEVEL)
    return points, [float(low), float(high)]
