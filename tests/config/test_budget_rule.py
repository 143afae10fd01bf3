"""One rule of budgets for every function and command: which are refused, and with which sentence."""

from __future__ import annotations

from typing import Any

import pytest

from duet_vlm import DuetError
from duet_vlm.config.budget_rule import Budget


@pytest.mark.parametrize(
    ("method", "tokens", "keep", "sentence"),
    [
        ("duet", 64, 0.5, "tokens 64 and keep 0.5 are both a budget: give one of them."),
        ("duet", 0, None, "tokens 0 must be a number above 0, and at most 2147483647."),
        ("duet", None, 1.5, "keep 1.5 must be a fraction in (0, 1]."),
        ("duet", "64", None, "tokens '64' must be a number above 0, and at most 2147483647."),
        ("duet", None, None, "there is no budget: give tokens=, an average per layer, or keep=, a fraction."),
        ("none", 64, None, "method 'none' compresses nothing: leave out tokens= and keep=, or choose another."),
        ("saved", None, 0.5, "method 'saved' brings its budget: leave out tokens= and keep=, or choose another."),
        ("settings", 9, None, "method 'settings' names every field itself: leave out tokens= and keep=, or choose"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(method: str, tokens: Any, keep: Any, sentence: str) -> None:
    with pytest.raises(DuetError) as refused:
        Budget.parse(method, tokens, keep)
    assert str(refused.value).startswith(sentence)


def test_a_budget_is_of_one_kind_or_none() -> None:
    assert Budget.parse("duet", 64, None) == Budget(tokens=64.0)
    assert Budget.parse("fastv", None, 1).value == 1.0
    assert [Budget.parse(name, None, None) for name in ("none", "saved", "settings")] == [Budget()] * 3
    assert Budget.parse("duet", None, None, needed=False).value is None
    assert Budget.several([64, 9], [0.5]) == [Budget(tokens=64), Budget(tokens=9), Budget(keep=0.5)]
