"""Reductions are float32 whatever autocast and the default dtype say, and float16 does not overflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from encoded import CONFIGS, RANKED, ROWS, TEXT, TOKENS, entrance, images, outcome
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from duet_vlm.stage1 import merge
from duet_vlm.stage2 import ranking
from duet_vlm.stage2.attention import attention
from duet_vlm.stage2.keynorm import keynorm


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
