"""Every option of stage 1 against a naive loop, and which options go together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import cosine
from stage1_cases import METHODS, clusters, images, many

from duet_vlm import DuetConfig
from duet_vlm.config.registry import STAGE1
from duet_vlm.stage1 import merge

DISCARDING = [name for name in METHODS if STAGE1[name].discards]


@many
@given(st.data())
def test_mean_of_anchor_and_members(data: st.DataObject) -> None:
    encoded, k = images(data, reserved=1)
    k2 = data.draw(st.integers(0, k), "K2")
    config = DuetConfig(k - k2 + 1, k2, combine="mean", merging=data.draw(st.sampled_from(["duet", "visionzip"])))
    found = merge(config, encoded, reserved=1)
    tokens = found.contextual(encoded.features)
    for row in range(2):
        for number, (anchor, members) in enumerate(clusters(found, row).items()):
            mean = encoded.features[row, [anchor, *members]].mean(0)
            torch.testing.assert_close(tokens[row, number], mean, atol=1e-5, rtol=1e-5)


@many
@given(st.data())
def test_diverse_dominant_tokens(data: st.DataObject) -> None:
    encoded, k = images(data)
    config = DuetConfig(k, 0, diverse=True, merging=data.draw(st.sampled_from(["duet", "visionzip"])))
    found = merge(config, encoded)
    for row in range(2):
        scores, x = encoded.scores[row].double().tolist(), encoded.features[row].double().tolist()
        chosen: list[int] = []
        for _ in range(k):
            left = [i for i in range(len(x)) if i not in chosen]
            chosen.append(max(left, key=lambda i: scores[i] * min([1 - cosine(x[i], x[j]) for j in chosen] + [1.0])))
        assert found.dominant[row].tolist() == sorted(chosen)


@many
@given(st.data())
def test_rest_is_the_mean_of_what_is_discarded(data: st.DataObject) -> None:
    encoded, k = images(data, reserved=1)
    k2, name = data.draw(st.integers(1, k), "K2"), data.draw(st.sampled_from(DISCARDING))
    config = DuetConfig(k - k2 + 1, k2, cluster_width=data.draw(st.integers(1, 4)), merging=name, rest=True)
    found = merge(config, encoded, reserved=1)
    without = METHODS[name](encoded, k - k2, k2 - 1, config.cluster_width)
    assert found.places.shape[1] == k
    for row in range(2):
        used = {*without.places[row].tolist(), *without.members[row].tolist()}
        discarded = [i for i in range(encoded.tokens) if i not in used]
        if not discarded:  # the pool is everything: as without the option
            assert torch.equal(found.places, METHODS[name](encoded, k - k2, k2, config.cluster_width).places)
            continue
        rest = found.retained(encoded.features)[row, -1]
        torch.testing.assert_close(rest, encoded.features[row, discarded].mean(0), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            found.retained(encoded.features)[row, :-1], without.retained(encoded.features)[row], atol=1e-5, rtol=1e-5
        )
        assert found.anchors[row, -1] == max(discarded, key=lambda i: without.scores[row, i])


OPTIONS = [
    (dict(dominant=5, diverse=True, merging="uniform"), "diverse has no meaning for merging 'uniform': use"),
    (dict(dominant=5, contextual=1, rest=True, merging="pool"), "merging 'pool' discards nothing"),
    (dict(dominant=5, rest=True), "rest takes one of the contextual tokens"),
    (dict(combine="sum"), "combine 'sum' is unknown: choose one of anchor\\+mean, mean"),
    (dict(ranking="tome"), "ranking 'tome' is unknown: choose one of attention, sparsevlm, keynorm, random"),
    (dict(ranking="keynorm", debias=True), "debias has no meaning for ranking 'keynorm'"),
    (dict(proportional=True), "proportional weighs merged tokens, and this config merges none"),
    (dict(downsample=(2, 2), proportional=True), "this config merges none"),
    (dict(dominant=5, proportional=True), "this config merges none: give contextual of at least 1"),
    (dict(dominant=5, contextual=2, merging="holov", proportional=True), "this config merges none"),
    (dict(dominant=5, contextual=2, cluster_width=1, proportional=True), "cluster_width of at least 2"),
    (dict(dominant=5, contextual=2, proportional="yes"), "proportional 'yes' must be True or False"),
    (dict(rest=1), "rest 1 must be True or False"),
    (dict(downsample=3), "downsample 3 must be \\(rows, columns\\)"),
    (dict(downsample=(3, 0)), "downsample \\(3, 0\\) must be"),
    (dict(downsample=(3, 3), dominant=4), "downsample is a stage 1 of its own"),
]


@pytest.mark.parametrize(("given", "message"), OPTIONS, ids=[m for _, m in OPTIONS])
def test_options_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        DuetConfig(**given)
    assert str(error.value).endswith(".") and len(str(error.value)) < 260
