"""The stage 1 methods that choose one token after another, each against a naive loop of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from greedy_loops import Rows, dart, mmr, scope, tops
from hypothesis import given
from hypothesis import strategies as st
from oracle import cosine
from stage1_cases import METHODS, images, many

from duet_vlm.stage1 import Encoded


def similarities(encoded: Encoded, row: int) -> Rows:
    x = encoded.features[row].double().tolist()
    return [[cosine(a, b) for b in x] for a in x]


@many
@given(st.data())
@pytest.mark.parametrize("name", ["scope", "mmr", "tops", "dart"])
def test_a_method_equals_its_naive_loop(name: str, data: st.DataObject) -> None:
    encoded, k = images(data)
    if name == "tops":  # the last tokens of an image that is covered are worth nothing, and rounding decides
        k = min(k, 1 + encoded.tokens // 2)
    k2 = data.draw(st.integers(0, k - 1), "K2")
    found = METHODS[name](encoded, k - k2, k2, 4)
    assert found.anchors.shape[1] == found.members.shape[1] == 0
    for row in range(2):
        first: Any = encoded.keys[row] if name == "dart" else encoded.scores[row]
        expected = {"scope": scope, "mmr": mmr, "tops": tops, "dart": dart}[name](
            first.double().tolist(), similarities(encoded, row), k
        )
        assert found.dominant[row].tolist() == sorted(expected)


def alike(places: list[int], tokens: int = 64) -> Encoded:
    """One image whose tokens at these places say nearly the same and are the most salient."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, tokens, 32, generator=generator)
    x[0, places] = x[0, places[0]] + 0.05 * torch.randn(len(places), 32, generator=generator)
    scores = torch.rand(1, tokens, generator=generator) * 0.1 + 0.2
    scores[0, places] += 1
    return Encoded(scores, x, x, (8, 8))


@pytest.mark.parametrize("name", ["scope", "mmr"])
def test_of_salient_tokens_that_say_the_same_few_are_kept(name: str) -> None:
    places = list(range(20, 32))
    encoded = alike(places)
    kept = set(METHODS[name](encoded, 12, 0, 4).dominant[0].tolist())
    assert 1 <= len(kept & set(places)) <= 6
    assert set(METHODS["duet"](encoded, 12, 0, 4).dominant[0].tolist()) == set(places)


def test_dart_never_keeps_two_that_say_the_same_beside_its_pivots() -> None:
    places = list(range(20, 32))
    encoded = alike(places)
    encoded.keys = encoded.keys.clone()
    encoded.keys[0, places[:1]] *= 10  # one of them is a pivot
    kept = set(METHODS["dart"](encoded, 12, 0, 4).dominant[0].tolist())
    pivots = set(encoded.keys[0].abs().sum(-1).argsort(descending=True)[:8].tolist())
    assert not (kept - pivots) & set(places)
