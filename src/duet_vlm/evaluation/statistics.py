"""Paired bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 2000
CHUNK = 100  # draws at a time, to bound memory
LEVEL = (2.5, 97.5)


def resampled_means(scores: np.ndarray, sources: Sequence[str], seed: int, draws: int = DRAWS) -> np.ndarray:
    """Means of every run in bootstrap resamples of the images, the same resamples for all runs.

    Questions about one image share its luck, so whole images are drawn, with replacement (a cluster bootstrap).

    Args:
        scores: (runs, questions), 0 to 1.
        sources: the image of each question.
        seed: of the resampling.
        draws: number of resamples.

    Returns:
        (draws, runs) float64.
    """
    _, cluster = np.unique(np.asarray(sources), return_inverse=True)
    clusters = int(cluster.max()) + 1
    sums = np.stack([np.bincount(cluster, weights=row, minlength=clusters) for row in scores])
    sizes = np.bincount(cluster, minlength=clusters)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, draws, CHUNK):
        count = min(CHUNK, draws - start)
        times = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=count)
        means.append((times @ sums.T) / (times @ sizes)[:, None])
    return np.concatenate(means)


def retained(scores: np.ndarray, means: np.ndarray) -> list[tuple[float | None, list[float] | None]]:
    """Accuracy in percent of the first run's, with its 95% interval, for every run; None where that one is 0.

    Args:
        scores: (runs, questions), 0 to 1.
        means: (draws, runs), of `resampled_means`.
    """
    accuracy = scores.mean(axis=1)
    if not accuracy[0]:
        return [(None, None)] * len(scores)
    # few questions may be drawn so that the full model has none right
    possible = means[means[:, 0] > 0]
    intervals = np.percentile(100 * possible / possible[:, :1], LEVEL, axis=0)
    return [
        (100 * float(mean / accuracy[0]), [float(low), float(high)])
        for mean, low, high in zip(accuracy, *intervals, strict=True)
    ]


def difference(scores: np.ndarray, means: np.ndarray, one: int, other: int) -> tuple[float, list[float]]:
    """Accuracy of run `one` minus that of run `other` in percentage points, with its 95% interval (paired)."""
    accuracy = scores.mean(axis=1)
    low, high = np.percentile(100 * (means[:, one] - means[:, other]), LEVEL)
    return 100 * float(accuracy[one] - accuracy[other]), [float(low), float(high)]
