"""FastV (arXiv 2403.06764): half of the tokens after layer 2, by the last token's attention in that layer."""

from __future__ import annotations

from ..config.schedule import Schedule

METHOD = Schedule(name="fastv", paper="2403.06764", ratios={2: 0.5}, query="last", rank_before=True, order=2)
