"""Stage 2's drops: before which decoder layer, and how much is kept. Plain data."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import DuetError, shown
from .values import is_number, is_whole


@dataclass(frozen=True)
class Drop:
    """One drop of stage 2: from decoder layer `layer` on, the best `floor(keep * M)` visual tokens of an image stay.

    M is the number of visual tokens of the image after stage 1 (docs/method.md, 2.3).

    Args:
        layer: the decoder layer at whose entrance tokens are dropped: a whole number from 1 to L - 1, which is how
            many layers have run before.
        keep: the keep ratio, from 0 to 1. It is always a fraction of M, never of what an earlier drop left. 0 drops
            every visual token.
        rank_at: the layer whose weights rank the tokens, where it is not `layer` (FastV ranks by the layer just run).

    Raises:
        DuetError: a value is not possible.

    Example:
        >>> from duet_vlm import Drop
        >>> Drop(16, 0.5)
        Drop(layer=16, keep=0.5, rank_at=None)
    """

    layer: int
    keep: float
    rank_at: int | None = None

    def __post_init__(self) -> None:
        layer, keep, rank_at = self.layer, self.keep, self.rank_at
        if not is_whole(layer, 1):
            raise DuetError(f"drop layer {shown(layer)} is not possible: it must be a whole number of at least 1.")
        if not is_number(keep) or not 0 <= keep <= 1:
            raise DuetError(f"keep ratio {shown(keep)} at drop layer {layer} must be a number from 0 to 1.")
        if rank_at is not None and not (is_whole(rank_at, 0) and rank_at <= layer):
            raise DuetError(f"rank_at {shown(rank_at)} must be a layer from 0 to the drop layer {layer}, or None.")
        set_fields(self, layer=int(layer), keep=abs(float(keep)), rank_at=None if rank_at is None else int(rank_at))

    @property
    def ranking_layer(self) -> int:
        """The decoder layer whose weights rank the tokens: `rank_at`, or else `layer`."""
        return self.layer if self.rank_at is None else self.rank_at


def check_order(drops: Sequence[Drop]) -> None:
    """Raise a DuetError where drops, in the order of their layers, do not fit one behind the other."""
    for before, after in itertools.pairwise(drops):
        if before.layer == after.layer:
            raise DuetError(f"drop layer {after.layer} is given twice: give each drop layer once.")
        if after.keep > before.keep:
            raise DuetError(
                f"keep ratios cannot grow, but layer {after.layer} keeps {after.keep:g} after layer {before.layer} "
                f"kept {before.keep:g}: both are fractions of the tokens after stage 1."
            )
        if after.ranking_layer <= before.layer:
            raise DuetError(
                f"the drop at layer {after.layer} cannot rank at layer {after.ranking_layer}: layer {before.layer} "
                f"drops tokens after that, so rank at {before.layer + 1} or later."
            )


def set_fields(frozen: Any, **values: Any) -> None:
    """Put checked values into a frozen dataclass that is being made."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def as_drops(value: Any) -> tuple[Drop, ...]:
    """Drops in any order, or mappings of their fields, as a tuple sorted by layer.

    Raises:
        DuetError: no list or tuple of drops.
    """
    if not isinstance(value, (list, tuple)):
        raise DuetError(f"drops {shown(value)} must be a list of drops, for example [Drop(16, 0.5)].")
    return tuple(sorted(map(_as_drop, value), key=lambda drop: drop.layer))


def _as_drop(value: Any) -> Drop:
    if isinstance(value, Drop):
        return value
    if not isinstance(value, Mapping):
        raise DuetError(f"{shown(value)} is no drop: write Drop(layer, keep), for example Drop(16, 0.5).")
    known = [f.name for f in fields(Drop)]
    wrong = [f"an unknown {shown(key)}" for key in value if key not in known]
    wrong += [f"no {key}" for key in ("layer", "keep") if key not in value]
    if wrong:
        raise DuetError(f"the drop {shown(value)} has {wrong[0]}: a drop is layer, keep and, if wanted, rank_at.")
    return Drop(**value)


def check_lending(drops: Sequence[Drop], lending: Collection[int], layers: int) -> None:
    """Refuse a drop behind a layer that lends its keys and values, as those who borrow would see what it drops.

    Args:
        drops: as asked for.
        lending: the decoder layers whose keys and values later layers use; none in most models.
        layers: how many decoder layers there are.

    Raises:
        DuetError: names the last layer where tokens can be dropped.

    Example:
        >>> from duet_vlm import Drop
        >>> from duet_vlm.config.drops import check_lending
        >>> check_lending((Drop(13, 0.5),), lending={13, 14}, layers=35)
    """
    for drop in drops:
        if lending and drop.keep < 1 and drop.layer > min(lending):
            lent = " and ".join(map(str, sorted(lending)))
            raise DuetError(
                f"drop layer {drop.layer} is not possible: layers {max(lending) + 1} to {layers - 1} use the keys and "
                f"values of layers {lent}, so all of them must see the same tokens: choose 1 to {min(lending)}."
            )


def ranked_with_attention(drops: Sequence[Drop], linear: Collection[int], layers: int) -> tuple[Drop, ...]:
    """Let every drop be ranked by a layer that has attention: the last one that is not behind the layer asked for.

    The drop layers stay, so a budget is met as it was counted.

    Args:
        drops: in the order of layers.
        linear: the decoder layers of linear attention, which has no weights to rank with.
        layers: how many decoder layers there are.

    Raises:
        DuetError: there is none, or the last one is in front of an earlier drop and would rank what that drops.

    Example:
        >>> from duet_vlm import Drop
        >>> from duet_vlm.config.drops import ranked_with_attention
        >>> ranked_with_attention((Drop(5, 0.5),), linear={0, 1, 2, 4, 5, 6}, layers=8)
        (Drop(layer=5, keep=0.5, rank_at=3),)
    """
    attending = [layer for layer in range(layers) if layer not in linear]
    found: list[Drop] = []
    free = 0  # the first layer behind the drops so far
    for drop in drops:
        if 0 < drop.keep < 1 and drop.ranking_layer in linear:
            able = [layer for layer in attending if free <= layer <= drop.ranking_layer]
            if not able:
                raise DuetError(_unranked(drop, free, attending))
            drop = replace(drop, rank_at=able[-1])
        free = drop.layer + 1 if drop.keep < 1 else free
        found.append(drop)
    return tuple(found)


def _unranked(drop: Drop, free: int, attending: list[int]) -> str:
    """Say why a drop cannot be ranked, where it could be; `free` is the first layer behind the drops before it."""
    last = drop.ranking_layer
    those = f"layer {last} has" if free >= last else f"layers {free} to {last} have"
    later = next((layer for layer in attending if layer > last), None)
    instead = "leave it out" if later is None else f"rank at layer {later} or later"
    return f"the drop at layer {drop.layer} cannot be ranked: {those} linear attention, without weights, so {instead}."
