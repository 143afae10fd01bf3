"""Between two drops the kept tokens are the same: mask, rotary embeddings and cache speak of them only, made once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..host import attention_kind, cache_of
from ..tensors.tokens import take, take_mask
from .cache import Coming, PrunedLayer, pruned_layer
from .forward_pass import ForwardPass
from .merge_sizes import weighed

Rope = tuple[Tensor, Tensor]


def restrict_prefill(layer: Any, i: int, hidden: Tensor, kwargs: dict[str, Any], state: ForwardPass) -> Tensor:
    """Give layer i what belongs to its part of a prompt, and tell its cache which part that is.

    Returns `hidden`, with filler behind it where that is faster: see `filler`.

    Args:
        hidden: (B, n, D) the layer's input.
        kwargs: the layer's keyword arguments, changed in place.
    """
    earlier, rows, n = removed_earlier(i, kwargs), state.rows, hidden.shape[1]
    columns, holes, past, log_s = rows, state.holes, 0, state.log_sizes
    cache = cache_of(kwargs)
    if cache is not None:
        stored = pruned_layer(cache, i)
        past = stored.length
        removed = state.removed if state.plan.renumbers else None
        after = stored.announce(Coming(rows, state.length, state.holes, removed, log_s))
        columns, holes, log_s = after["kept"], after["holes"], after["log_sizes"]
    if state.now is None and columns.shape[1] == past + n and log_s is None:
        return hidden  # nothing dropped up to here
    mask, rope = kwargs["attention_mask"], kwargs["position_embeddings"]
    key = (len(state.kept), id(mask), id(rope))
    if key not in state.memo:
        places = torch.where(rows < 0, -1, rows + past) if mask is None else rows
        here = None if mask is None else mask.to(hidden.device)
        restricted = restricted_mask(layer, hidden, here, places, columns.to(hidden.device), holes, log_s)
        cos, sin = rotate(hidden, kwargs, state, earlier)
        more = filler(layer, hidden, kwargs) if restricted is None and not past else 0
        # the sources are kept, so that their ids are not used again
        state.memo[key] = restricted, (repeat_last(cos, more), repeat_last(sin, more)), more, (mask, rope)
    kwargs["attention_mask"], kwargs["position_embeddings"], more = state.memo[key][:3]
    kwargs["position_ids"] = None  # flash attention would take the gaps for packed sequences
    return repeat_last(hidden, more)


def filler(layer: Any, hidden: Tensor, kwargs: dict[str, Any]) -> int:
    """How many tokens to put behind (B, n, D), which no token sees and no cache stores, because it is faster.

    A CPU's matrix kernels (oneDNN) take a fifth longer for some odd numbers of rows, 371 for one. What stands behind
    the tokens changes nothing for them where attention is causal without a mask, as sdpa is; an attention function of
    somebody else's may not be. Nor is there any where the layers' outputs are asked for.
    """
    asked = kwargs.get("output_hidden_states") or layer.self_attn.config.output_hidden_states
    if asked or hidden.device.type != "cpu" or attention_kind(layer.self_attn) != "sdpa":
        return 0
    return hidden.shape[1] % 2


def repeat_last(x: Tensor, times: int) -> Tensor:
    """(B, n, D) -> (B, n + times, D)."""
    return torch.cat([x, x[:, -1:].expand(-1, times, -1)], dim=1) if times else x


def restrict_decode(layer: Any, i: int, hidden: Tensor, kwargs: dict[str, Any], state: ForwardPass) -> None:
    """Give layer i what belongs to text that follows a compressed prompt; arguments as in `restrict_prefill`."""
    cache, mask = cache_of(kwargs), kwargs["attention_mask"]
    stored: PrunedLayer = cache.layers[i]
    stored.announce(Coming(None, hidden.shape[1]))
    if mask is not None or stored.holes or stored.log_sizes is not None:
        key = (id(stored.kept), id(mask))
        if key not in state.memo:
            columns, n = stored.columns(coming=hidden.shape[1]), hidden.shape[1]
            places = columns[:, -n:] if mask is None else columns[:, -n:] - stored.length
            here = None if mask is None else mask.to(columns.device)
            restricted = restricted_mask(layer, hidden, here, places, columns, stored.holes, stored.log_sizes)
            state.memo[key] = restricted, mask
        kwargs["attention_mask"] = state.memo[key][0]
    if stored.removed is not None:
        if "ropes" not in state.memo:
            state.memo["ropes"] = _ropes(hidden, kwargs["position_ids"], cache.layers, state.plan.rotary)
        kwargs["position_embeddings"] = state.memo["ropes"][id(stored.removed)]
    kwargs["position_ids"] = None


def _ropes(hidden: Tensor, positions: Tensor, layers: list[PrunedLayer], rotary: Any) -> dict[int, Rope]:
    """The rotary embeddings of every segment in one call: decoding cannot afford one each."""
    removed = {id(layer.removed): layer.removed for layer in layers if layer.removed is not None}
    gone = torch.stack([r.to(positions.device) for r in removed.values()])  # (segments, B, 1)
    shifted = (positions - gone).clamp_(min=0)
    cos, sin = rotary(hidden, shifted.flatten(0, 1))
    parts = zip(cos.split(gone.shape[1]), sin.split(gone.shape[1]), strict=True)
    return dict(zip(removed, parts, strict=True))


def restricted_mask(
    layer: Any, hidden: Tensor, mask: Tensor | None, places: Tensor, columns: Tensor, holes: bool, log_s: Tensor | None
) -> Tensor | None:
    """`take_mask` in the form that the layer takes, and `weighed` where merged tokens weigh more (log_s is given)."""
    restricted = take_mask(mask, places, columns, holes, wants_flash(layer))
    return restricted if log_s is None else weighed(restricted, places, columns, log_s, hidden.dtype)


def wants_flash(layer: Any) -> bool:
    """Whether the layer's attention takes a two-dimensional mask."""
    return "flash" in attention_kind(layer.self_attn)


def removed_earlier(i: int, kwargs: dict[str, Any]) -> Tensor | None:
    """(B, 1) how many tokens layer i's cache is missing from earlier calls, for renumbered positions; None for none."""
    cache = cache_of(kwargs)
    stored = cache.layers[i] if cache is not None and len(cache.layers) > i else None
    return stored.removed if isinstance(stored, PrunedLayer) else None


def rotate(hidden: Tensor, kwargs: dict[str, Any], state: ForwardPass, earlier: Tensor | None) -> Rope:
    """Rotary embeddings of the present tokens: gathered where positions stay, computed where they are renumbered."""
    rope: Rope = kwargs["position_embeddings"]
    renumbers = state.plan.renumbers and state.now is not None
    if earlier is None and not renumbers:
        here = rope[0].to(hidden.device), rope[1].to(hidden.device)
        return here if state.now is None else (take(here[0], state.now), take(here[1], state.now))
    key = ("rope", len(state.kept), id(earlier), id(rope))
    if key not in state.memo:
        positions = kwargs["position_ids"].to(hidden.device)
        if state.now is not None:
            positions = take(positions, state.now)
        if renumbers:
            positions = positions - state.removed_before()
        if earlier is not None:
            positions = positions - earlier.to(hidden.device)
        state.memo[key] = state.plan.rotary(hidden, positions.clamp(min=0)), (earlier, rope)
    cos_sin: Rope = state.memo[key][0]
    return cos_sin
