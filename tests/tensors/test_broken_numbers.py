"""What is no number stays in its row, its token and its cluster, in every method and ranking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from encoded import CONFIGS, RANKED, TOKENS, entrance, images, outcome, row
from hypothesis import given, settings
from hypothesis import strategies as st

from duet_vlm import DuetConfig
from duet_vlm.stage1 import Merge, merge
from duet_vlm.stage2.attention import attention

BROKEN = {"nan": torch.nan, "inf": torch.inf, "minus inf": -torch.inf, "huge": 3e38, "zero": 0.0}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("whole", [True, False], ids=["a row", "a number"])
def test_what_is_no_number_stays_in_its_row(kind: str, whole: bool) -> None:
    encoded, seen = images(), entrance()
    where: Any = (1,) if whole else (1, ..., 3)
    for x in (encoded.scores, encoded.keys, encoded.features, seen.query, seen.key, seen.hidden, seen.questions):
        x[where] = BROKEN[kind]
    for name, config in CONFIGS.items():
        together = outcome(config, encoded)
        for number in (0, 2):
            for key, value in outcome(config, row(encoded, number)).items():
                torch.testing.assert_close(together[key][number], value[0], msg=f"{name} {key}")
    for name, ranked in RANKED.items():
        together_scores = ranked(seen)
        for number in (0, 2):
            torch.testing.assert_close(together_scores[number], ranked(row(seen, number))[0], msg=name)


def test_padding_and_holes_do_not_leak_into_scores() -> None:
    seen = entrance()
    expected = attention(seen)
    seen.key[0, :, :2] = torch.nan  # nobody sees them
    seen.key[-1, :, 1] = torch.inf
    seen.query[1, :, 1] = torch.nan  # nobody asks this
    torch.testing.assert_close(attention(seen), expected)


def test_a_feature_that_is_no_number_stays_in_its_cluster() -> None:
    encoded = images(rows=1)
    found = merge(DuetConfig(9, 4, cluster_width=4), encoded)
    expected, member = found.contextual(encoded.features), int(found.members[0, 0])
    encoded.features[0, member] = torch.nan
    now, cluster = found.contextual(encoded.features), int(found.joins[0, 0])
    others = [i for i in range(4) if i != cluster]
    assert bool(now[0, cluster].isnan().all()) and torch.equal(now[:, others], expected[:, others])


def check_distinct(found: Merge, k: int, name: str) -> None:
    assert found.places.shape[1] == k, name
    for places, members in zip(found.places.tolist(), found.members.tolist(), strict=True):
        assert len(set(places)) == k and 0 <= min(places) <= max(places) < TOKENS, name
        assert not set(places) & set(members), name


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_method_retains_distinct_tokens_of_anything(data: st.DataObject) -> None:
    encoded = images(data.draw(st.sampled_from([torch.float32, torch.float16]), "dtype"), rows=2)
    for name in ("scores", "keys", "features"):
        x, kind = getattr(encoded, name), data.draw(st.sampled_from([*BROKEN, "same", "copies", "fine"]), name)
        if kind == "same":
            x[:] = 1.0
        elif kind == "copies":
            x[:, TOKENS // 2 :] = x[:, : TOKENS // 2]
        elif kind != "fine":
            x[:, :: data.draw(st.integers(1, 5), "every")] = torch.tensor(BROKEN[kind]).to(x.dtype)
    k = data.draw(st.integers(1, TOKENS), "K")
    k2 = data.draw(st.integers(0, k - 1), "K2")
    for name, config in CONFIGS.items():
        contextual = max(k2, 1) if config.rest and k > 1 else k2
        if config.rest and not contextual:
            continue
        asked = replace(config, dominant=k - contextual, contextual=contextual)
        check_distinct(merge(asked, encoded), k, name)
