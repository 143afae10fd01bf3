"""Reductions are float32 whatever autocast and the default dtype say, and what is no number stays in its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from duet_vlm import DuetConfig
from duet_vlm.config.registry import RANKINGS, STAGE1, at_encoder
from duet_vlm.stage1 import Encoded, Merge, merge
from duet_vlm.stage2 import ranking
from duet_vlm.stage2.attention import attention
from duet_vlm.stage2.keynorm import keynorm
from duet_vlm.tensors.streamed import Places, Softmax, column_sums

ROWS, GRID, TEXT = 3, (6, 8), 5
TOKENS = GRID[0] * GRID[1]
CONFIGS = {
    **{name: DuetConfig(9, 3, merging=name) for name in at_encoder()},
    "diverse": DuetConfig(9, 3, diverse=True),
    "mean": DuetConfig(9, 3, combine="mean"),
    **{
        f"rest of {name}": DuetConfig(9, 3, cluster_width=2, merging=name, rest=True)
        for name in at_encoder()
        if STAGE1[name].discards
    },
}
RANKED: dict[str, Callable[[ranking.RankingInputs], Tensor]] = {
    **{name: row.load() for name, row in RANKINGS.items()},
    "no debias": lambda seen: attention(replace(seen, average=None)),
    "average": lambda seen: ranking.average_token(seen.hidden, seen.visual),
    "received": lambda seen: column_sums(seen.query, seen.key[:, :, :TEXT], seen.softmax),
}


def images(dtype: torch.dtype = torch.float32, rows: int = ROWS) -> Encoded:
    generator = torch.Generator().manual_seed(0)
    scores, keys, features = (torch.rand(rows, TOKENS, *more, generator=generator) for more in ((), (8,), (16,)))
    return Encoded(scores, keys - 0.4, (features - 0.4).to(dtype), GRID)


def entrance(dtype: torch.dtype = torch.float32, rows: int = ROWS) -> ranking.RankingInputs:
    generator = torch.Generator().manual_seed(0)
    n, past = TOKENS + TEXT, 4

    def some(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=generator).to(dtype)

    seen = torch.arange(past + n).expand(rows, -1).clone()
    seen[0, :2], seen[-1, 1] = -1, -1
    asked = torch.arange(past + TOKENS, past + n).expand(rows, -1).clone()
    asked[1, 1] = -1
    visual = torch.arange(n).expand(rows, -1) < TOKENS
    return ranking.RankingInputs(
        query=some(4, TEXT, 8),
        key=some(2, past + n, 8),
        places=Places(asked, seen),
        softmax=Softmax(8**-0.5),
        hidden=some(n, 16),
        questions=some(TEXT, 16),
        visual=visual,
        spans=visual * torch.arange(1, rows + 1)[:, None],
        limits=torch.tensor([0, *[TOKENS // 2] * rows]),
        average=some(2, n, 8),
        log_sizes=torch.ones(rows, past + n).mul(3).log(),
    )


def row(x: Any, number: int) -> Any:
    """One row of a dataclass of tensors."""
    changed = {}
    for name in (field.name for field in fields(x)):
        value = getattr(x, name)
        if isinstance(value, Tensor):
            changed[name] = value[number : number + 1]
        elif isinstance(value, Places):
            changed[name] = row(value, number)
    return replace(x, **changed)


def outcome(config: DuetConfig, encoded: Encoded) -> dict[str, Tensor]:
    found = merge(config, encoded)
    return {"places": found.places, "members": found.members, "joins": found.joins, "sizes": found.sizes,
            "retained": found.retained(encoded.features)}  # fmt: skip


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


CONTEXTS: dict[str, Callable[[], Any]] = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "default bfloat16": lambda: default(torch.bfloat16),
    "default float16": lambda: default(torch.float16),
    "default float64": lambda: default(torch.float64),
}


def dtype_in(context: str, half: bool) -> torch.dtype:
    """A model's dtype that torch itself can mix with the context."""
    if not half:
        return torch.float32
    return torch.float16 if context.endswith(" float16") else torch.bfloat16


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("half", [False, True])
def test_no_context_changes_a_merge(context: str, half: bool) -> None:
    encoded = images(dtype_in(context, half))
    for name, config in CONFIGS.items():
        expected = outcome(config, encoded)
        with CONTEXTS[context]():
            found = outcome(config, encoded)
        for key, value in expected.items():
            assert found[key].dtype == value.dtype and torch.equal(found[key], value), (name, key)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("half", [False, True])
def test_no_context_changes_a_score(context: str, half: bool) -> None:
    dtype = dtype_in(context, half)
    seen = entrance(dtype)
    for name, ranked in RANKED.items():
        expected = ranked(seen)
        assert expected.dtype == (dtype if name == "average" else torch.float32), name
        with CONTEXTS[context]():
            found = ranked(seen)
        assert found.dtype == expected.dtype and torch.equal(found, expected), name


class NoDouble(TorchDispatchMode):
    """Fails where anything of float64 is made, which Apple's devices do not have."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            assert not isinstance(x, Tensor) or x.dtype != torch.float64, function.name()
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nothing_is_made_in_float64(dtype: torch.dtype) -> None:
    encoded, seen = images(dtype), entrance(dtype)
    with pytest.raises(AssertionError, match="aten"), NoDouble():
        torch.zeros(1).double()
    with NoDouble():
        for config in CONFIGS.values():
            outcome(config, encoded)
        for ranked in RANKED.values():
            ranking.top_per_span(
                ranked(seen)[..., :TEXT].flatten(1)[:, :TEXT], torch.ones(ROWS, TEXT).long(), torch.tensor([0, 2])
            )


def test_large_float16_numbers_do_not_overflow() -> None:
    encoded = images(torch.float16)
    encoded.features = encoded.features * 0 + 30000  # two of them are more than float16 holds
    for name in ("pool", "prumerge", "mean"):
        retained = merge(CONFIGS[name], encoded).retained(encoded.features)
        torch.testing.assert_close(retained, torch.full_like(retained, 30000), msg=name)
    seen = entrance()
    large = replace(seen, query=(seen.query * 300).half(), key=(seen.key * 300).half(), average=None)
    exact = replace(large, query=large.query.double(), key=large.key.double())
    torch.testing.assert_close(attention(large).double(), attention(exact), atol=1e-5, rtol=1e-4)
    norms = -large.key[:, :, seen.past :].double().norm(dim=-1).mean(1)
    torch.testing.assert_close(keynorm(large).double(), norms, atol=0, rtol=1e-5)
    assert float(large.key.double().square().sum(-1).max()) > 65504  # the test is one


def test_means_by_weights_of_almost_nothing_keep_their_digits() -> None:
    """PruMerge divides by the scores of a cluster, which may all be zero."""
    encoded = images(rows=1)
    encoded.scores = torch.zeros(1, TOKENS)
    encoded.features = encoded.features * 1e-3
    found = merge(CONFIGS["prumerge"], encoded)
    for number, anchor in enumerate(found.anchors[0].tolist()):
        cluster = [anchor, *found.members[0][found.joins[0] == number].tolist()]
        expected = encoded.features[0, cluster].double().mean(0)
        torch.testing.assert_close(found.contextual(encoded.features)[0, number].double(), expected, rtol=1e-5, atol=0)


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
