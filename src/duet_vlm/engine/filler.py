"""One token more behind an odd number of them, because a CPU is faster with an even one. Nobody sees it.

A CPU's matrix kernels (oneDNN) take up to a fifth longer for some odd numbers of rows, 371 for one. What stands behind
the tokens changes nothing for them where attention is causal without a mask, as sdpa is; an attention function of
somebody else's may not be. It is put on as the layer's input, and taken off the next layer's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..host import CACHE_NAMES, attention_kind
from ..host.types import DecoderLayer
from .restriction import Restriction


def without(hidden: Tensor, tokens: int) -> Tensor:
    """Take the filler off hidden states: (B, n or n + 1, D) -> (B, n, D)."""
    return hidden[:, :tokens] if hidden.shape[1] > tokens else hidden


def put_on(layer: DecoderLayer, hidden: Tensor, kwargs: dict[str, Any], restriction: Restriction) -> Tensor:
    """Put one more token behind the hidden states where that is faster and changes nothing: (B, n, D) -> (B, n + 1, D).

    The layer's outputs must not be asked for, and its cache must be empty: it stores the n tokens.

    Args:
        layer: the decoder layer.
        hidden: its input.
        kwargs: what else it is called with, as the restriction gave it; changed to fit.
        restriction: what belongs to the n tokens.
    """
    outputs = kwargs.get("output_hidden_states") or layer.self_attn.config.output_hidden_states
    causal = attention_kind(layer.self_attn) == "sdpa" and restriction.mask is None and not restriction.before.length
    n = hidden.shape[1]
    if n % 2 == 0 or hidden.device.type != "cpu" or not causal or restriction.whole or outputs:
        return hidden
    kwargs.update(restriction.with_filler)
    for name in CACHE_NAMES:
        if kwargs.get(name) is not None:
            kwargs[name] = _Without(kwargs[name], n)
    return torch.cat([hidden, hidden[:, -1:]], dim=1)


class _Without:
    """An empty cache that stores n of the tokens a layer brings, while the layer attends to all of them."""

    def __init__(self, cache: Any, tokens: int) -> None:
        self._cache, self._tokens = cache, tokens

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        n = self._tokens
        self._cache.update(key_states[:, :, :n], value_states[:, :, :n], *args, **kwargs)
        return key_states, value_states

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._cache, name)
