"""Between two drops the tokens are the same: what layers are given of them is made once, for ranking and attending."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..host import attention_kind, cache_of
from ..host.types import DecoderLayer
from ..tensors.tokens import take, take_mask
from .cache import NOTHING, Held, PrunedLayer, pruned_layer
from .forward_pass import Decode, Prefill
from .merge_sizes import add_size_bias
from .restriction import Restriction, Rope, changed


def stored_by(layer: DecoderLayer, kwargs: dict[str, Any]) -> PrunedLayer | None:
    """Return the cache layer that a decoder layer stores its keys and values in; None without a cache."""
    cache = cache_of(kwargs)
    return None if cache is None else pruned_layer(cache, layer.self_attn.layer_idx)


def restriction_for(
    layer: DecoderLayer, hidden: Tensor, kwargs: dict[str, Any], state: Prefill | Decode, stored: PrunedLayer | None
) -> Restriction:
    """Return the restriction of the segment that this layer is in, and make it where none that suits was made.

    Args:
        layer: the decoder layer.
        hidden: (B, n, D) its input.
        kwargs: what else it is called with.
        state: the pass, which remembers what was made.
        stored: from `stored_by`.
    """
    before = NOTHING if stored is None else stored.held
    # layers of one segment are given the very same objects, which the restriction keeps alive
    key = id(before.kept), before.length, id(kwargs["attention_mask"]), id(kwargs["position_embeddings"])
    made = state.restrictions.get(key)
    if made is None:
        if isinstance(state, Prefill):
            made = _of_prompt(layer, hidden, kwargs, state, before)
        else:
            made = _of_text(layer, hidden, kwargs, state, before)
        state.restrictions[key] = made
    return made


def _of_prompt(
    layer: DecoderLayer, hidden: Tensor, kwargs: dict[str, Any], state: Prefill, before: Held
) -> Restriction:
    """Make the restriction of a prompt to the tokens that are present."""
    present, device = state.present, hidden.device
    stock = mask, rope = kwargs["attention_mask"], kwargs["position_embeddings"]
    after = before.after_prompt(
        present.places,
        state.visual.shape[1],
        holes=present.holes,
        removed=present.removed if state.plan.renumbers else None,
        log_sizes=state.log_sizes,
    )
    columns = after.columns(len(hidden), device).to(device)
    missing = present.kept is not None or after.holes or columns.shape[1] < after.length
    if not missing and after.log_sizes is None:
        same = changed(rope, lambda x: x.to(device))
        positions = kwargs["position_ids"].to(device) if state.plan.scales else None
        return Restriction(before, after, stock, mask, same, whole=True, positions=positions)
    rows = present.places
    if mask is None:
        rows = torch.where(rows < 0, -1, rows + before.length)
    restricted = _mask(layer, hidden, mask, rows, columns, after)
    rope, positions = _standing(hidden, kwargs, state, before)
    return Restriction(before, after, stock, restricted, rope, positions=positions)


def _standing(hidden: Tensor, kwargs: dict[str, Any], state: Prefill, before: Held) -> tuple[Rope, Tensor | None]:
    """Gather rotary embeddings where positions stay, and compute them where they are renumbered.

    Returns:
        Them, and the positions, (B, n) long, where the decoder's attention scales queries by them.
    """
    present, device, plan = state.present, hidden.device, state.plan
    renumbers = plan.renumbers and present.kept is not None
    moved, positions = renumbers or before.removed is not None, None
    if moved or plan.scales:
        positions = kwargs["position_ids"].to(device)
        if present.kept is not None:
            positions = take(positions, present.kept)
        if renumbers:
            positions = positions - present.removed_before()
        if before.removed is not None:
            positions = positions - before.removed.to(device)
        positions = positions.clamp(min=0)
    if moved:
        rope: Rope = plan.rotary(hidden, positions)
    else:
        rope = changed(kwargs["position_embeddings"], lambda x: present.vectors(x.to(device)))
    return rope, positions if plan.scales else None


def _of_text(layer: DecoderLayer, hidden: Tensor, kwargs: dict[str, Any], state: Decode, before: Held) -> Restriction:
    """Make the restriction of text that follows compressed prompts; none of the text is dropped."""
    stock = mask, rope = kwargs["attention_mask"], kwargs["position_embeddings"]
    (batch, n), after = hidden.shape[:2], before.after_text(hidden.shape[1])
    if mask is not None or before.holes or before.log_sizes is not None:
        columns = after.columns(batch, hidden.device)
        rows = columns[:, -n:] if mask is None else columns[:, -n:] - before.length
        mask = _mask(layer, hidden, mask, rows, columns, after)
    if before.removed is not None:
        if state.ropes is None:
            state.ropes = _ropes(hidden, kwargs["position_ids"], cache_of(kwargs).layers, state.plan.rotary)
        rope = state.ropes[id(before.removed)]
    positions = None
    if state.plan.scales:
        positions = kwargs["position_ids"]
        if before.removed is not None:
            positions = (positions - before.removed.to(positions.device)).clamp(min=0)
    return Restriction(before, after, stock, mask, rope, positions=positions)


def _ropes(hidden: Tensor, positions: Tensor, layers: list[PrunedLayer], rotary: Any) -> dict[int, Rope]:
    """Compute the rotary embeddings of every segment in one call, as decoding cannot afford one call each.

    Returns:
        id of `Held.removed` -> (B, n, d) cosines and sines, or one tensor of complex numbers.
    """
    held = [getattr(layer, "held", NOTHING).removed for layer in layers]  # a linear layer has no positions
    removed = {id(one): one for one in held if one is not None}
    missing = torch.stack([one.to(positions.device) for one in removed.values()])  # (segments, B, 1)
    rope: Rope = rotary(hidden, (positions - missing).clamp_(min=0).flatten(0, 1))
    count = len(missing)
    parts = rope.chunk(count) if isinstance(rope, Tensor) else zip(*(x.chunk(count) for x in rope), strict=True)
    return dict(zip(removed, parts, strict=True))


def _mask(
    layer: DecoderLayer, hidden: Tensor, mask: Tensor | None, rows: Tensor, columns: Tensor, after: Held
) -> Tensor | None:
    """Cut the mask by `take_mask` to the form that the layer takes, and add the weight of merged tokens."""
    flash = "flash" in attention_kind(layer.self_attn)
    mask = None if mask is None else mask.to(columns.device)
    restricted = take_mask(mask, rows, columns, after.holes, flash)
    if after.log_sizes is None:
        return restricted
    return add_size_bias(restricted, rows, columns, after.log_sizes, hidden.dtype)
