"""The search that budgets are solved by."""

from __future__ import annotations

import pytest

from duet_vlm.config.fitting import last_that


@pytest.mark.parametrize("low", [0, 3, 9])
@pytest.mark.parametrize("high", [9, 10, 11, 40])
def test_the_search_finds_what_trying_every_number_finds(low: int, high: int) -> None:
    for end in range(low, high + 2):
        tried = max([n for n in range(low, high) if n <= end], default=low)
        assert last_that(lambda n, end=end: n <= end, low, high) == tried
