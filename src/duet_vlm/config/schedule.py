"""Where a stage 2 drops, and how much: its authors' layers and ratios on a decoder of any depth. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .choices import Query
from .drops import Drop


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Stage 2 as its authors set it. Alone, it drops at the same layers, with a power of its ratios.

    Attributes:
        name: of the method.
        paper: its arXiv id; "" for none.
        ratios: drop layer -> keep ratio, as used behind a stage 1. A layer is a number, or a share of the decoder's
            depth such as "3/4", rounded down; on a decoder too shallow for them, numbers become the last layer and
            shares that round to 0 fall away. A ratio of None is the family's: `duet` publishes two of them for each.
        ranking: name of what ranks, a name of `registry.RANKINGS`.
        query: whose attention ranks, as in `DuetConfig`.
        nearest: whether shares round to the nearest layer, 1 at least, instead of down.
        rank_before: whether the layer just run ranks, instead of the next one.
        order: where it stands in lists; methods without one follow, by name.
    """

    name: str
    paper: str = ""
    ratios: Mapping[int | str, float | None]
    ranking: str = "attention"
    query: Query = "salient"
    nearest: bool = False
    rank_before: bool = False
    order: int = 100

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of `DuetConfig` beside `drops`."""
        return {"query": self.query, "ranking": self.ranking}

    def at(self, layers: int, keep_ratios: tuple[float, float]) -> dict[int, float]:
        """Drop layer -> keep ratio on a decoder of so many layers, whose family's own ratios are `keep_ratios`."""
        own, ratios = iter(keep_ratios), dict[int, float]()
        for where, ratio in self.ratios.items():
            ratios[self._layer(where, layers)] = next(own) if ratio is None else ratio
        return {layer: ratio for layer, ratio in ratios.items() if 1 <= layer < layers}

    def _layer(self, where: int | str, layers: int) -> int:
        if isinstance(where, int):
            return min(where, layers - 1)
        layer = Fraction(where) * layers
        return max(1, round(layer)) if self.nearest else int(layer)

    def drops(self, ratios: Mapping[int, float]) -> list[Drop]:
        """Drops at these layers with these ratios."""
        return [Drop(layer, ratio, layer - 1 if self.rank_before else None) for layer, ratio in ratios.items()]
