"""Sound: merging with neighbours in time, against a naive loop."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import cosine
from stage1_cases import many

from duet_vlm.stage1 import Encoded
from duet_vlm.stage1.neighbours import merge_neighbours


def naive(scores: list[float], keys: list[list[float]], retained: int, window: int) -> dict[int, list[int]]:
    """Retained place -> the places that join it."""
    n = len(scores)
    enough = math.ceil(n / window) <= retained
    number = [i // window if enough else i * retained // n for i in range(n)]
    best = {w: max((i for i in range(n) if number[i] == w), key=lambda i: (scores[i], -i)) for w in set(number)}
    rest = sorted((i for i in range(n) if i not in best.values()), key=lambda i: (-scores[i], i))
    stay = sorted([*best.values(), *rest[: retained - len(best)]])
    clusters: dict[int, list[int]] = {place: [] for place in stay}
    for i in range(n):
        if i in clusters:
            continue
        before = [a for a in stay if a < i and number[a] == number[i]][-1:]
        behind = [a for a in stay if a > i and number[a] == number[i]][:1]
        clusters[max(before + behind, key=lambda a: cosine(keys[i], keys[a]))].append(i)
    return clusters


@many
@given(st.data())
def test_neighbours_merge_as_a_loop_does(data: st.DataObject) -> None:
    n, window = data.draw(st.integers(1, 40), "N"), data.draw(st.integers(1, 15), "window")
    retained = data.draw(st.integers(1, n), "retained")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**20), "seed"))
    scores, keys, features = (torch.rand(2, n, *more, generator=generator) - 0.4 for more in ((), (5,), (7,)))
    if data.draw(st.booleans(), "ties"):
        scores = scores.round(decimals=1)
    found = merge_neighbours(Encoded(scores, keys, features), retained, window)
    kept = found.retained(features)
    assert found.dominant.shape[1] == 0 and kept.shape == (2, retained, 7)
    for row in range(2):
        expected = naive(scores[row].tolist(), keys[row].tolist(), retained, window)
        anchors, members = found.anchors[row].tolist(), found.members[row].tolist()
        joined = {place: [] for place in anchors}
        for member, join in zip(members, found.joins[row].tolist(), strict=True):
            joined[anchors[join]].append(member)
        assert joined == expected
        means = torch.stack([features[row, [place, *others]].mean(0) for place, others in expected.items()])
        torch.testing.assert_close(kept[row], means)
        assert found.sizes[row].tolist() == [1 + len(others) for others in expected.values()]
