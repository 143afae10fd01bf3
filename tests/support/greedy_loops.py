"""Greedy selections as naive loops, from their papers: lists of numbers, sorted by Python.

`a` is what each of N tokens is worth by itself, `s` (N, N) their cosines, `k` how many are chosen.
"""

from __future__ import annotations

import torch

Rows = list[list[float]]


def scope(a: list[float], s: Rows, k: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < k:
        covered = [max([0.0] + [s[i][j] for i in chosen]) for j in range(len(a))]
        gains = [sum(max(0.0, s[i][j] - covered[j]) for j in range(len(a))) * a[i] for i in range(len(a))]
        chosen.append(max((i for i in range(len(a)) if i not in chosen), key=lambda i: gains[i]))
    return chosen


def mmr(a: list[float], s: Rows, k: int) -> list[int]:
    importance = [(x - min(a)) / (max(a) - min(a)) if max(a) > min(a) else 0.0 for x in a]
    chosen = [max(range(len(a)), key=lambda i: importance[i])]
    while len(chosen) < k:
        worth = [0.5 * importance[i] - 0.5 * max(s[i][j] for j in chosen) for i in range(len(a))]
        chosen.append(max((i for i in range(len(a)) if i not in chosen), key=lambda i: worth[i]))
    return chosen


def tops(a: list[float], s: Rows, k: int, lam: float = 1.0, alpha: float = 0.5) -> list[int]:
    chosen = [max(range(len(a)), key=lambda i: a[i])]
    while len(chosen) < k:
        left = [i for i in range(len(a)) if i not in chosen]
        near = [max([0.0] + [s[i][j] for j in chosen]) for i in range(len(a))]
        gain = {i: sum(max(0.0, s[i][j] - near[j]) for j in range(len(a))) for i in left}
        parts = [(1.0, {i: a[i] for i in left}), (lam, gain), (alpha, {i: 1 - near[i] for i in left})]
        means = [sum(part.values()) / len(left) for _, part in parts]
        chosen.append(max(left, key=lambda i: sum(w * p[i] / m for (w, p), m in zip(parts, means, strict=True))))
    return chosen


def dart(keys: Rows, s: Rows, k: int) -> list[int]:
    longest = sorted(range(len(keys)), key=lambda i: -sum(map(abs, keys[i])))
    chosen = longest[: min(8, k)]
    pivots, rest = list(chosen), k - len(chosen)
    for number, pivot in enumerate(pivots):
        left = [i for i in range(len(keys)) if i not in chosen]
        share = rest * (number + 1) // len(pivots) - rest * number // len(pivots)
        chosen += sorted(left, key=lambda i: s[pivot][i])[:share]
    return chosen


def determinant(a: list[float], s: Rows, count: int) -> list[int]:
    """CDPruner's set by the determinants themselves."""
    kernel = torch.tensor([[a[i] * s[i][j] * a[j] for j in range(len(a))] for i in range(len(a))]).double()
    out: list[int] = []
    while len(out) < count:
        left = [i for i in range(len(a)) if i not in out]
        out.append(max(left, key=lambda i: float(torch.linalg.det(kernel[[*out, i]][:, [*out, i]]))))
    return out
