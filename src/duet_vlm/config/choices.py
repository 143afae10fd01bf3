"""The words that a setting can be, where there are only these."""

from __future__ import annotations

from typing import Literal, get_args

Query = Literal["salient", "all", "last"]
Positions = Literal["auto", "renumber", "keep"]
Combine = Literal["anchor+mean", "mean"]

CHOICES: dict[str, tuple[str, ...]] = {
    "query": get_args(Query),
    "positions": get_args(Positions),
    "combine": get_args(Combine),
}
