"""Attention that scales queries by how many tokens stand before them and counts these itself, as in Llama 4.

It counts the tokens that it is given and asks the cache how many came before. What is counted is what the layer holds:
the cache answers so for its sake, while everyone else is told of the whole sequence. A ranking asks with all tokens,
not with the query tokens alone. Holes are counted, as stock counts padding.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .. import host
from .cache import PrunedLayer


class Holding:
    """A cache that says of a layer how many tokens it holds; the rest is the cache's.

    Args:
        cache: None where nothing is stored, as in a ranking.
        tokens: held by the layer that asks.
    """

    def __init__(self, cache: Any, tokens: int) -> None:
        self._cache, self._tokens = cache, tokens

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._tokens

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self._cache is None:
            return key_states, value_states
        stored: tuple[Tensor, Tensor] = self._cache.update(key_states, value_states, *args, **kwargs)
        return stored


def held_by(stored: PrunedLayer | None) -> int:
    """Count the tokens that a layer's cache holds, holes included."""
    return stored.keys.shape[-2] if stored is not None and stored.held.length and stored.keys is not None else 0


def hooks_on(decoder: Any) -> list[Any]:
    """Hook the attention of a decoder that counts; what this returns has `remove()`. None of the others."""
    found = [layer.self_attn for layer in decoder.layers if host.attends(layer)]
    return [
        attention.register_forward_pre_hook(tell, with_kwargs=True)
        for attention in found
        if host.counts_tokens(attention)
    ]


def tell(attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """Before attention that counts: the cache says what this layer holds, where a compressed prompt went into it."""
    cache, i = host.cache_of(kwargs), attention.layer_idx
    layers = getattr(cache, "layers", ())
    stored = layers[i] if isinstance(i, int) and i < len(layers) else None
    if not isinstance(stored, PrunedLayer) or stored.held.kept is None:
        return None
    name = next(name for name in host.CACHE_NAMES if kwargs.get(name) is not None)
    return args, kwargs | {name: Holding(cache, held_by(stored))}
