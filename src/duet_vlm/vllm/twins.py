"""What a decoder layer of vLLM makes of hidden states before it attends: asked of shallow copies that stop there.

The layer's own norms, projections and rotary embedding compute it, and nothing of vLLM is repeated.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


class _Seen(Exception):
    """What was looked for is there: the rest of the module's forward is not needed."""


class _Stop(nn.Module):
    """Stands in for a module and keeps what it is given."""

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise _Seen(args, kwargs)


class Twin:
    """A decoder layer, seen from outside. It keeps no module that a model would take for its own."""

    def __init__(self, layer: Any):
        """See the layer; its weights may be loaded later."""
        attention = layer.self_attn
        self._entrance = _twin(layer, self_attn=_Stop())
        self._attention = _twin(attention, attn=_Stop())
        self._width: int = attention.attn.head_size
        self._attn = (attention.attn,)

    @property
    def scale(self) -> float:
        """The factor on the products of queries and keys."""
        return float(self._attn[0].impl.scale)

    def entrance(self, positions: Tensor, hidden: Tensor, residual: Tensor | None) -> Tensor:
        """(n, D) what the attention is given, of (n, D) hidden states and what is to be added to them."""
        try:  # norms may write where they read
            self._entrance(positions, hidden.clone(), None if residual is None else residual.clone())
        except _Seen as seen:
            args, kwargs = seen.args
        normed: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[-1]
        return normed

    def queries_and_keys(self, positions: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
        """(1, H, n, d) queries and (1, Hkv, n, d) keys, rotated, of what `entrance` gave."""
        try:
            self._attention(positions=positions, hidden_states=normed)
        except _Seen as seen:
            (query, key, *_), _ = seen.args
        query, key = (x.unflatten(-1, (-1, self._width)).transpose(0, 1)[None] for x in (query, key))
        return query, key


def _twin(module: nn.Module, **others: nn.Module) -> nn.Module:
    """A shallow copy with other modules in it; the module itself does not notice."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, **others}
    return twin
