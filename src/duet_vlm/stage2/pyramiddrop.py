"""PyramidDrop (arXiv 2410.17247): half of the tokens at every quarter of the depth, by the last token's attention."""

from __future__ import annotations

from ..config.schedule import Schedule

METHOD = Schedule(
    name="pyramiddrop",
    paper="2410.17247",
    ratios={"1/4": 0.5, "1/2": 0.25, "3/4": 0.125},
    query="last",
    order=1,
)
