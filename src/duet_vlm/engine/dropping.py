"""At the entrance of a decoder layer: rank the visual tokens, and drop some (docs/method.md, stage 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..config.budget import SLACK
from ..host import attention, cache_of
from ..stage2 import ranking
from ..tensors.streamed import Places
from ..tensors.tokens import take
from . import segments
from .cache import PrunedLayer
from .forward_pass import ForwardPass

_FINE = 2**40  # keep ratios as whole numbers: not every device has float64


def compress(layer: Any, i: int, hidden: Tensor, kwargs: dict[str, Any], state: ForwardPass) -> Tensor:
    """Rank and drop what this layer's entrance ranks and drops; (B, n, D) -> (B, m, D)."""
    plan = state.plan
    if i == 0 and state.gone is not None:
        hidden = take(hidden, state.drop(0, state.present(state.valid) & ~state.present(state.gone)))
    if i in plan.ranking_layers:
        state.scores[i] = rank(layer, i, hidden, kwargs, state)
    if i in plan.drops:
        drop, visual = plan.drops[i], state.present(state.visual)
        keep = state.present(state.valid) & ~visual
        if drop.keep > 0:
            state.scores[i], state.ranked[i] = state.scores[drop.ranking_layer], state.now
            assert state.limits is not None
            keep |= ranking.top_per_span(state.scores[i], state.present(state.spans), kept(state.limits, drop.keep))
        if state.unanswered is not None:
            keep |= state.present(state.valid) & state.unanswered
        hidden = take(hidden, state.drop(i, keep))
    return hidden


def kept(tokens: Tensor, keep: float) -> Tensor:
    """`budget.keep_count` of (n,) long counts, without leaving their device: floor(keep * tokens)."""
    return (tokens * round(keep * _FINE) + round(SLACK * _FINE)) >> 40


@torch.no_grad()
def rank(layer: Any, i: int, hidden: Tensor, kwargs: dict[str, Any], state: ForwardPass) -> Tensor:
    """(B, n) score of every present token with the weights of layer i (docs/method.md, 2.2)."""
    plan, rows, asked = state.plan, state.rows, state.present_queries()
    rotary = segments.rotate(hidden, kwargs, state, segments.removed_earlier(i, kwargs))
    normed = attention.entrance(layer, hidden, **kwargs)
    query, softmax = attention.queries(
        layer.self_attn,
        take(normed, asked),
        position_embeddings=tuple(take(r, asked) for r in rotary),
    )
    key = attention.keys(layer.self_attn, normed, position_embeddings=rotary)
    visual, average = state.present(state.visual), None
    if plan.config.debias:
        same = ranking.average_token(normed, visual)
        average = attention.keys(layer.self_attn, same, position_embeddings=rotary)
    log_s = None if state.log_sizes is None else state.present(state.log_sizes)
    past, earlier_key, earlier_places, earlier_log = earlier(i, kwargs, state)
    seen = torch.where(state.present(state.valid), rows + past, -1)
    if earlier_key is not None:
        key = torch.cat([earlier_key.to(key), key], dim=2)
        seen = torch.cat([earlier_places, seen], dim=1)
        if log_s is not None or earlier_log is not None:
            now = torch.zeros_like(visual, dtype=torch.float32) if log_s is None else log_s
            before = torch.zeros_like(earlier_places, dtype=torch.float32) if earlier_log is None else earlier_log
            log_s = torch.cat([before, now], dim=1)
    places = Places(torch.where(asked < 0, -1, take(rows, asked) + past), seen)
    assert state.limits is not None
    drop = next(drop for drop in plan.drops.values() if drop.keep > 0 and drop.ranking_layer == i)
    inputs = ranking.RankingInputs(
        query=query,
        key=key,
        places=places,
        softmax=softmax,
        hidden=hidden,
        questions=take(hidden, asked),
        visual=visual,
        spans=state.present(state.spans),
        limits=kept(state.limits, drop.keep),
        average=average,
        log_sizes=log_s,
    )
    return ranking.ranked(plan.config.ranking_method, inputs)


def earlier(i: int, kwargs: dict[str, Any], state: ForwardPass) -> tuple[int, Any, Any, Any]:
    """What layer i's cache holds: tokens seen, (B, Hkv, P, d) keys, (B, P) places, -1 where not real, log sizes."""
    cache = cache_of(kwargs)
    stored = cache.layers[i] if cache is not None and len(cache.layers) > i else None
    if stored is None or not stored.get_seq_length():
        return 0, None, None, None
    device = state.rows.device
    pruned = stored if isinstance(stored, PrunedLayer) else PrunedLayer(stored)
    columns = pruned.columns().to(device)
    valid = columns >= 0
    if state.past_valid is not None:
        valid = valid & take(state.past_valid, columns)
    log_s = pruned.log_sizes
    if log_s is not None:
        beyond = (columns < 0) | (columns >= log_s.shape[1])
        log_s = take(log_s.to(device), columns.clamp(max=log_s.shape[1] - 1)).masked_fill(beyond, 0)
    return pruned.length, stored.keys.to(device), columns.masked_fill(~valid, -1), log_s
