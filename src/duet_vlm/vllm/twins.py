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


class _Given(nn.Module):
    """Stands in for a projection whose result is there.

    Attributes:
        value: the result.
    """

    value: Tensor | None = None

    def forward(self, x: Tensor) -> tuple[Tensor | None, None]:
        return self.value, None


class Twin:
    """A decoder layer that ranks, seen from outside.

    Its projections of all tokens are made once, for the ranking, and what is left of them serves the layer itself: so
    ranking costs those of the dropped tokens alone.
    """

    def __init__(self, layer: Any):
        """See the layer; its weights may be loaded later."""
        attention, self._given = layer.self_attn, _Given()
        self._entrance = twin(layer, self_attn=_Stop())
        self._fresh = twin(attention, attn=_Stop())
        self._before = twin(attention, qkv_proj=self._given, attn=_Stop())
        self._layer = twin(layer, self_attn=twin(attention, qkv_proj=self._given))
        self._project, self._impl = attention.qkv_proj, attention.attn.impl
        self._width: int = attention.attn.head_size

    @property
    def scale(self) -> float:
        """The factor on the products of queries and keys."""
        return float(self._impl.scale)

    def look(self, positions: Tensor, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What the layer makes of its input before it attends.

        Args:
            positions: (n,) or (axes, n).
            hidden: (n, D).
            residual: (n, D) to be added to it; None in front of the first layer.

        Returns:
            (n, D) normed hidden states, (1, H, n, d) queries and (1, Hkv, n, d) keys, both rotated.
        """
        try:  # norms may write where they read
            self._entrance(positions, hidden.clone(), None if residual is None else residual.clone())
        except _Seen as seen:
            args, kwargs = seen.args
        normed: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[-1]
        projected, _ = self._project(normed)
        self._given.value = projected.clone()  # rotary embeddings are written into it
        query, key = self._seen(self._before, positions, normed)
        self._given.value = projected
        return normed, query, key

    def keys(self, positions: Tensor, normed: Tensor) -> Tensor:
        """(1, Hkv, n, d) keys of other (n, D) normed hidden states, rotated."""
        return self._seen(self._fresh, positions, normed)[1]

    def run(
        self, positions: Tensor, hidden: Tensor, residual: Tensor | None, index: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run the layer that was looked at, on those of its tokens that `index` (m,) names; None for all of them."""
        assert self._given.value is not None
        if index is not None:
            self._given.value = self._given.value[index]
        try:
            made: tuple[Tensor, Tensor] = self._layer(positions, hidden, residual)
            return made
        finally:
            self._given.value = None

    def _seen(self, attention: nn.Module, positions: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
        try:
            attention(positions=positions, hidden_states=normed)
        except _Seen as seen:
            (query, key, *_), _ = seen.args
        query, key = (x.unflatten(-1, (-1, self._width)).transpose(0, 1)[None] for x in (query, key))
        return query, key


def twin(module: nn.Module, **others: nn.Module) -> nn.Module:
    """A shallow copy with other modules in it; the module itself does not notice."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, **others}
    return twin
