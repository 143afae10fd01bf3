"""`coverage`: how many tokens stage 1 keeps, against a naive loop; and what settings with it can be."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from greedy_loops import scope
from hostile import one_sentence
from oracle import cosine
from torch import Tensor

from duet_vlm import DuetConfig, DuetError
from duet_vlm.config.budget import least_of
from duet_vlm.stage1 import Encoded, merge
from duet_vlm.tensors import greedy as module
from duet_vlm.tensors.greedy_loops import together

GREEDY = ("scope", "mmr", "tops", "divprune")


def image(seed: int, tokens: int = 24, rank: int = 5) -> Encoded:
    """Tokens around a few directions, so that few of them cover much."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(rank, 16, generator=generator)
    x = basis[torch.randint(rank, (tokens,), generator=generator)]
    x = x + 0.3 * torch.randn(tokens, 16, generator=generator)
    scores = torch.rand(1, tokens, generator=generator) + 0.1
    return Encoded(scores, x[None], x[None], (4, tokens // 4))


def kept(encoded: Encoded, **settings: Any) -> list[int]:
    config = DuetConfig(**{"dominant": 1.0, "merging": "scope"} | settings)
    places: list[int] = merge(config, encoded, dynamic=True).dominant[0].tolist()
    return places


def share(x: Tensor, places: list[int]) -> float:
    """The mean over all tokens of the cosine to the nearest of these, by one cosine after the other."""
    tokens = x.double().tolist()
    return sum(max(0.0, *(cosine(tokens[i], token) for i in places)) for token in tokens) / len(tokens)


@pytest.mark.parametrize("seed", range(3))
def test_scope_stops_where_a_naive_loop_has_covered_the_share(seed: int) -> None:
    encoded = image(seed)
    x = encoded.features[0]
    similar = [[cosine(a, b) for b in x.double().tolist()] for a in x.double().tolist()]
    order = scope(encoded.scores[0].double().tolist(), similar, 23)
    for wanted in (0.3, 0.6, 0.8, 0.9, 0.97):
        count = next((k for k in range(1, 24) if share(x, order[:k]) >= wanted), 23)
        assert kept(encoded, coverage=wanted) == sorted(order[:count])


@pytest.mark.parametrize("merging", GREEDY)
def test_a_share_is_reached_and_not_before(merging: str) -> None:
    """The same tokens as by a fixed count; on an accelerator, which stops nowhere on the way, too."""
    encoded = image(5)
    for wanted in (0.5, 0.8, 0.95):
        found = kept(encoded, merging=merging, coverage=wanted)
        assert found == kept(encoded, merging=merging, dominant=len(found))
        assert share(encoded.features[0], found) >= wanted - 1e-6
        fewer = kept(encoded, merging=merging, dominant=len(found) - 1) if len(found) > 1 else []
        assert not fewer or share(encoded.features[0], fewer) < wanted
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "alone", together)
            assert kept(encoded, merging=merging, coverage=wanted) == found


def test_a_plain_image_costs_one_token_and_floor_and_ceiling_hold() -> None:
    plain = image(0)
    plain.features = torch.ones_like(plain.features)
    assert len(kept(plain, coverage=0.99)) == 1
    assert len(kept(plain, coverage=0.99, coverage_floor=5)) == 5
    assert len(kept(plain, coverage=0.99, coverage_floor=0.5)) == 12
    assert len(kept(image(0), coverage=1.0, dominant=9)) == 9
    assert len(kept(image(0), coverage=1.0, dominant=0.25)) == 6
    assert len(kept(image(0), coverage=0.9, coverage_floor=0.5, dominant=8)) == 8  # whichever is lower
    nothing = image(0)
    nothing.features = torch.zeros_like(nothing.features)
    assert len(kept(nothing, coverage=0.5, dominant=7)) == 7  # what covers nothing ends at the ceiling
    broken = image(1)
    broken.features[0, 3] = math.nan
    assert 3 not in kept(broken, coverage=0.8)


def test_the_least_of_an_image() -> None:
    config = DuetConfig(dominant=0.5, merging="scope", coverage=0.9, coverage_floor=0.25)
    assert least_of(config, 100) == 25
    assert least_of(DuetConfig(dominant=9, merging="scope", coverage=0.9, coverage_floor=8), 4) == 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (dict(coverage=0), "coverage 0 must be a fraction"),
        (dict(coverage=1.2), r"coverage 1\.2 must be a fraction"),
        (dict(coverage="0.9"), "must be a fraction"),
        (dict(coverage=0.9, dominant=None), r"coverage 0\.9 needs stage 1"),
        (dict(coverage=0.9, merging="duet"), r"coverage 0\.9 is for methods that choose one token after another"),
        (dict(coverage=0.9, merging="visionzip"), "merge with 'divprune' or 'mmr' or 'scope' or 'tops'"),
        (dict(coverage=0.9, contextual=3), r"coverage 0\.9 merges nothing"),
        (dict(coverage=0.9, dominant=9, coverage_floor=10), "coverage_floor 10 is above dominant 9"),
        (dict(coverage=0.9, coverage_floor=0), "coverage_floor 0 must be an int of at least 1"),
        (dict(coverage_floor=4), "coverage_floor 4 is the least that coverage takes"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(DuetError, match=told) as error:
        DuetConfig(**{"dominant": 1.0, "merging": "scope"} | settings)
    one_sentence(error)


def test_it_is_saved_under_a_version_of_its_own_and_others_are_as_before() -> None:
    config = DuetConfig(dominant=1.0, merging="scope", coverage=0.9, coverage_floor=8)
    data = json.loads(json.dumps(config.to_dict()))
    assert data["version"] == 3 and DuetConfig.from_dict(data) == config
    before = DuetConfig(dominant=9).to_dict()
    assert before["version"] == 1 and not {"coverage", "coverage_floor", "history"} & {*before}
    assert DuetConfig(dominant=9, audio_keep=0.5).to_dict()["version"] == 2
