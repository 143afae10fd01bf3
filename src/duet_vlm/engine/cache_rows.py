"""Some rows of a batch answer from a compressed prompt and others from the whole one: one cache for both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import LinearAttentionLayer

from .cache import Held, PrunedLayer


def with_whole_rows(compressed: list[Any], whole: list[Any], rows: Tensor) -> list[Any]:
    """Put the marked rows of a stock cache's layers into those of a compressed one.

    What a row does not hold stands in front of it as a hole.

    Args:
        compressed: layers of a cache into which a compressed prompt went, and nothing else; changed.
        whole: layers of a stock cache that has seen the same prompt.
        rows: (B,) bool, those that are taken from `whole`.
    """
    made: dict[tuple[int, int], Held] = {}  # layers of a segment go on sharing what they hold
    for one, other in zip(compressed, whole, strict=True):
        if isinstance(one, PrunedLayer):
            _take_keys(one, other, rows, made)
        elif isinstance(one, LinearAttentionLayer):
            for states, others in (
                (one.conv_states, other.conv_states),
                (one.recurrent_states, other.recurrent_states),
            ):
                for i, state in states.items():
                    if state is not None:
                        states[i] = _chosen(rows, others[i], state)
    return compressed


def _take_keys(one: PrunedLayer, other: Any, rows: Tensor, made: dict[tuple[int, int], Held]) -> None:
    ours: tuple[Any, Any] = (one.keys, one.values)
    theirs: tuple[Any, Any] = (other.keys, other.values)
    width, count = ours[0].shape[-2], theirs[0].shape[-2]
    key = id(one.held), count
    if key not in made:
        made[key] = _held(one.held, width, count, rows)
    most = max(width, count)
    one.keys, one.values = (
        _chosen(rows, pad(b, (0, 0, most - count, 0)), pad(a, (0, 0, most - width, 0)))
        for a, b in zip(ours, theirs, strict=True)
    )
    one.held = made[key]


def _held(held: Held, width: int, count: int, rows: Tensor) -> Held:
    """What a layer holds: as before, but of the marked rows the last `count` tokens (a window may have passed some)."""
    sizes, removed, marked = held.log_sizes, held.removed, rows[:, None]
    if sizes is not None:
        sizes = sizes.masked_fill(marked.to(sizes.device), 0)
    if removed is not None:
        removed = removed.masked_fill(marked.to(removed.device), 0)
    if held.kept is None and count == held.length:
        return replace(held, log_sizes=sizes)
    columns = held.columns(len(rows), rows.device)
    last = torch.arange(held.length - count, held.length, device=columns.device).expand(len(rows), -1)
    most = max(width, count)
    kept = _chosen(rows, pad(last, (most - count, 0), value=-1), pad(columns, (most - width, 0), value=-1))
    return replace(held, kept=kept, holes=held.holes or width != count, removed=removed, log_sizes=sizes)


def _chosen(rows: Tensor, marked: Tensor, others: Tensor) -> Tensor:
    return torch.where(rows.to(others.device).view(-1, *[1] * (others.ndim - 1)), marked.to(others.device), others)
