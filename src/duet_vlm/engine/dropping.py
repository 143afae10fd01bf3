"""At the entrance of a decoder layer: rank the visual tokens, and drop some (docs/method.md, stage 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import host
from ..config.drops import Drop
from ..config.values import SLACK
from ..host import attention
from ..host.types import DecoderLayer
from ..stage2 import ranking
from ..tensors.streamed import Places
from ..tensors.tokens import take
from . import counting
from .cache import PrunedLayer
from .forward_pass import Prefill, TextOnly
from .segments import restriction_for, stored_by

_FINE = 2**40  # keep ratios as whole numbers: not every device has float64

Watch = Callable[[int, Callable[[], Tensor]], Tensor]


def compress(
    layer: DecoderLayer, hidden: Tensor, kwargs: dict[str, Any], prompt: Prefill, watch: Watch | None = None
) -> Tensor:
    """Rank and drop visual tokens at the entrance of one layer, as the plan says; (B, n, D) -> (B, m, D).

    Args:
        layer: the decoder layer.
        hidden: its input.
        kwargs: what else it is called with.
        prompt: changed: it goes on with what is kept.
        watch: runs each ranking, see `Engine.watching`.
    """
    plan, i = prompt.plan, host.layer_number(layer)
    if i == 0 and prompt.merged_away is not None:
        hidden = prompt.drop(0, prompt.valid & ~prompt.merged_away, hidden)
    if i in plan.ranking_layers:

        def scores() -> Tensor:
            stored = stored_by(layer, kwargs)
            return rank(layer, hidden, kwargs, prompt, stored)

        prompt.scores[i] = scores() if watch is None else watch(i, scores)
    if i in plan.drops_by_layer:
        drop, flags = plan.drops_by_layer[i], prompt.present.flags
        valid = flags(prompt.valid)
        keep = valid & ~flags(prompt.visual)
        if plan.ranks(drop):
            ranked = prompt.scores[drop.ranking_layer]
            prompt.scores[i], prompt.ranked[i] = ranked, prompt.present.kept
            keep |= ranking.top_per_span(ranked, flags(prompt.spans), limits_of(prompt, drop))
        if prompt.without_answer is not None:
            keep |= valid & prompt.without_answer
        hidden = prompt.drop(i, keep, hidden)
    return hidden


def run_to_no_effect(layer: DecoderLayer, hidden: Tensor, kwargs: dict[str, Any], text: TextOnly) -> Tensor:
    """Run the modules that a prompt with images runs here, without any effect but gradients of 0; (B, n, D) stays."""
    i, device = host.layer_number(layer), host.device_of(layer, hidden.device)
    hidden = hidden.to(device)
    text.prompt.move(device)
    if i == 0:
        hidden = hidden + text.zero.to(hidden)
    if i in text.prompt.plan.ranking_layers:
        rank(layer, hidden, kwargs, text.prompt)
    return hidden


def kept(tokens: Tensor, keep: float) -> Tensor:
    """Compute floor(keep * tokens) of (n,) long counts on their device, as `budget.keep_count` does on the host."""
    return (tokens * round(keep * _FINE) + round(SLACK * _FINE)) >> 40


def limits_of(prompt: Prefill, drop: Drop) -> Tensor:
    """Count what a drop keeps of every span, (spans + 1,) long; of sounds, which come last, by their own ratio."""
    images = len(prompt.limits) - prompt.sounds
    counts = kept(prompt.limits[:images], drop.keep)
    if prompt.guide is not None:
        counts = counts.new_tensor(prompt.guide.limits(drop.keep))
    audio = prompt.plan.audio
    if audio is None:
        return counts
    return torch.cat([counts, kept(prompt.limits[images:], audio.ratios[drop.layer])])


@torch.no_grad()
def rank(
    layer: DecoderLayer,
    hidden: Tensor,
    kwargs: dict[str, Any],
    prompt: Prefill,
    stored: PrunedLayer | None = None,
) -> Tensor:
    """Score every present token with the weights of this layer: (B, n) float. docs/method.md, 2.2.

    Args:
        layer: the decoder layer.
        hidden: (B, n, D) its input.
        kwargs: what else it is called with.
        prompt: what is ranked.
        stored: what the layer's cache holds of earlier calls; None without a cache.
    """
    present, past = prompt.present, 0 if stored is None else stored.held.length
    restriction = restriction_for(layer, hidden, kwargs, prompt, stored)
    queries = present.find(prompt.queries)
    normed, told = attention.attention_input(layer, hidden, **kwargs), restriction.told
    if host.counts_tokens(layer.self_attn):
        seen = counting.Holding(None, counting.held_by(stored))
        known = host.cache_argument(type(layer.self_attn).forward, seen)
        query, softmax = attention.queries(layer.self_attn, normed, **told(), **known)
        query = take(query, queries, dim=2)
    else:
        query, softmax = attention.queries(layer.self_attn, take(normed, queries), **told(queries))
    key = attention.keys(layer.self_attn, normed, **told())
    visual, average = present.flags(prompt.visual), None
    if prompt.plan.config.debias:
        same = ranking.average_token(normed, visual)
        if prompt.audio is not None:
            audio = present.flags(prompt.audio)
            images, sounds = (ranking.average_token(normed, kind) for kind in (visual & ~audio, audio))
            same = torch.where(audio[..., None], sounds, images)
        average = attention.keys(layer.self_attn, same, **told())
    log_s = None if prompt.log_sizes is None else present.flags(prompt.log_sizes)
    columns = torch.where(present.flags(prompt.valid), present.places + past, -1)
    if stored is not None and past:
        earlier_key, earlier, earlier_log = _cached(stored, prompt)
        key, columns = torch.cat([earlier_key.to(key), key], dim=2), torch.cat([earlier, columns], dim=1)
        if log_s is not None or earlier_log is not None:
            zeros = torch.zeros_like(columns, dtype=torch.float32)
            log_s = torch.cat(
                [
                    zeros[:, : earlier.shape[1]] if earlier_log is None else earlier_log,
                    zeros[:, earlier.shape[1] :] if log_s is None else log_s,
                ],
                dim=1,
            )
    asked = torch.where(queries < 0, -1, take(present.places, queries) + past)
    if prompt.sees_ahead:  # as far as the last of them, which ends the prompt, and no window hides anything of it
        asked = torch.where(asked < 0, -1, asked.amax(1, keepdim=True))
        softmax = replace(softmax, window=None)
    places = Places(asked, columns)
    drops = prompt.plan.drops_by_layer.values()
    drop = next(drop for drop in drops if prompt.plan.ranks(drop) and drop.ranking_layer == layer.self_attn.layer_idx)
    inputs = ranking.RankingInputs(
        query=query,
        key=key,
        places=places,
        softmax=softmax,
        hidden=hidden,
        questions=take(hidden, queries),
        visual=visual,
        spans=present.flags(prompt.spans),
        limits=limits_of(prompt, drop),
        average=average,
        log_sizes=log_s,
    )
    return ranking.ranked(prompt.plan.config.ranking_method, inputs)


def _cached(stored: PrunedLayer, prompt: Prefill) -> tuple[Tensor, Tensor, Tensor | None]:
    """Read what a layer's cache holds of earlier calls.

    Returns:
        (B, Hkv, P, d) keys; (B, P) their places, -1 where they are not real; (B, P) log sizes, or None.
    """
    keys: Any = stored.keys
    device, log_s = prompt.visual.device, stored.held.log_sizes
    columns = stored.held.columns(len(keys), device).to(device)
    valid = columns >= 0
    if prompt.past_valid is not None:
        valid = valid & take(prompt.past_valid, columns)
    if log_s is not None:
        beyond = (columns < 0) | (columns >= log_s.shape[1])
        log_s = take(log_s.to(device), columns.clamp(max=log_s.shape[1] - 1)).masked_fill(beyond, 0)
    return keys.to(device), columns.masked_fill(~valid, -1), log_s
