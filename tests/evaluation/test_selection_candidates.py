"""What `duet-plus` was chosen among: all at one budget, and two coverages that equal slow loops."""

from __future__ import annotations

import math

import pytest
import torch

from duet_vlm.config.budget import tokens_per_layer
from duet_vlm.demo.model import load
from duet_vlm.stage1 import Encoded, Merge
from recipes.selection import candidates

pytestmark = pytest.mark.usefixtures("own_methods")


def test_all_candidates_cost_the_same() -> None:
    model, _ = load()
    candidates.register()
    runs, problems = candidates.candidates(model, 0.11, [])
    assert problems == [] and len({run.method for run in runs}) == len(runs) > 40
    for run in runs:
        counts = tokens_per_layer(run.config, 196, 12)
        assert abs(sum(counts) / 12 - 0.11 * 196) <= 1, run.method
    (only,) = candidates.candidates(model, 0.11, ["scope+duet"])[0]
    assert only.config == next(run.config for run in runs if run.method == "scope+duet")


@pytest.mark.parametrize("weighted", [False, True])
def test_coverage_of_centred_features_is_that_of_slow_loops(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, object] = {}
    monkeypatch.setattr(candidates, "register_stage1", made.__setitem__)
    candidates.register()
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(1, 9, 5, generator=generator, dtype=torch.float64).float()
    scores = torch.rand(1, 9, generator=generator)
    method = made["weighted-cover" if weighted else "scope-centred"]
    assert callable(method)
    merge = method(Encoded(scores, features, features), 4, 0, 1)
    assert isinstance(merge, Merge)
    rows = [[x - sum(column) / 9 for x, column in zip(row, zip(*features[0].tolist(), strict=True), strict=True)]
            for row in features[0].tolist()]  # fmt: skip
    cosine = [[sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))
               for y in rows] for x in rows]  # fmt: skip
    chosen, near = list[int](), [0.0] * 9
    for _ in range(4):
        worth = {}
        for i in set(range(9)) - set(chosen):
            gains = [max(0.0, cosine[i][j] - near[j]) for j in range(9)]
            a = scores[0].tolist()
            worth[i] = sum(g * a[j] for j, g in enumerate(gains)) if weighted else a[i] * sum(gains)
        chosen.append(max(worth, key=lambda i: worth[i]))
        near = [max(n, cosine[chosen[-1]][j]) for j, n in enumerate(near)]
    assert merge.dominant[0].tolist() == sorted(chosen)
