"""See the queries and keys of a transformers attention module, without running its attention.

The only user of `AttentionInterface`. The stock module computes them itself (its norms, projections and rotary
embedding); a shallow copy of it is asked, so that no other call on the module can notice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from ..tensors.streamed import Softmax, column_sums
from .names import takes

_RECORD = "duet_record"

Note = Callable[[Tensor, Tensor, Tensor | None, Softmax], None]


class Seen(Exception):
    """What was looked for is there: the rest of the module's forward is not needed."""


class _Zeros(nn.Module):
    """Stands in for a projection whose result is not needed."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(self.width).expand(*x.shape[:-1], self.width)  # pairs of it may be seen as complex


class _Entrance(nn.Module):
    """Stands in for a layer's attention and keeps what it is given."""

    def forward(self, *args: Any, **kwargs: Any) -> None:
        raise Seen(args[0] if args else kwargs["hidden_states"])


def _record(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **kwargs: Any
) -> tuple[Tensor, None]:
    scaling = kwargs.get("scaling")
    softmax = Softmax(
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        kwargs.get("softcap"),
        kwargs.get("sliding_window"),
        kwargs.get("s_aux"),
    )
    note: Any = module.duet_note  # on the recorder, because some modules hand their kwargs to nobody
    note(query, key, attention_mask, softmax)
    return query.transpose(1, 2), None


def unwrapped(module: Any) -> Any:
    """The stock module in one that `torch.compile` returned."""
    return getattr(module, "_orig_mod", module)


def twin(module: nn.Module) -> Any:
    """A second module object that shares this one's attributes.

    The class is not asked to make it: under FSDP2 it would make another sharded module.
    """
    second = object.__new__(type(module))
    second.__dict__.update(module.__dict__)
    return second


def _recorder(attention: Any, needed: tuple[str, ...], note: Note) -> nn.Module:
    """A copy of the module that shares its weights, projects only what is needed and records instead of attending."""
    AttentionInterface.register(_RECORD, _record)  # a name nobody else uses; here, so that importing changes nothing
    recorder: nn.Module = twin(attention)
    modules = dict(attention._modules)
    for name in ("q_proj", "k_proj", "v_proj"):
        width = getattr(modules.get(name), "out_features", None)
        if name not in needed and width is not None:
            # of full width, because some modules count their heads, norm across them or split a gate off
            modules[name] = _Zeros(width)
    for name in ("o_proj", "out_proj", "proj", "projection_layer"):
        if name in modules:
            modules[name] = nn.Identity()
    config = copy.copy(attention.config)
    config._attn_implementation_internal = _RECORD
    recorder.__dict__.update(_modules=modules, config=config, duet_note=note)
    return recorder


@torch.no_grad()
def attention_input(layer: nn.Module, hidden: Tensor, **kwargs: Any) -> Tensor:
    """Return what a decoder layer gives to its `self_attn`, (B, n, D): normed, where it norms before.

    The layer's own forward says so, as far as it goes.

    Args:
        hidden: (B, n, D) the layer's input.
        kwargs: what else the layer is called with.
    """
    layer = unwrapped(layer)
    looking = twin(layer)
    looking.__dict__.update(_modules={**layer._modules, "self_attn": _Entrance()})
    try:
        type(layer).forward(looking, hidden, **kwargs)
    except Seen as seen:
        hidden_given: Tensor = seen.args[0]
        return hidden_given
    raise AssertionError(f"{type(layer).__name__} did not call self_attn")


@torch.no_grad()
def queries(attention: nn.Module, hidden: Tensor, **kwargs: Any) -> tuple[Tensor, Softmax]:
    """Compute queries (B, H, n, d) of `hidden` (B, n, D), normed and rotated as the module does, and how it attends."""
    query, _, softmax = _first(attention, "q_proj", hidden, kwargs)
    return query, softmax


@torch.no_grad()
def keys(attention: nn.Module, hidden: Tensor, **kwargs: Any) -> Tensor:
    """Compute keys (B, Hkv, n, d) of `hidden` (B, n, D), normed and rotated as the module does."""
    return _first(attention, "k_proj", hidden, kwargs)[1]


def _first(attention: nn.Module, needed: str, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Softmax]:
    """Queries, keys and softmax of a module that attends once; what follows its attention is not run."""

    def note(query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        raise Seen(query, key, softmax)

    try:
        _ask(attention, (needed,), hidden, note, {**kwargs, "attention_mask": None})
    except Seen as seen:
        query, key, softmax = seen.args
        return query, key, softmax
    raise AssertionError(f"{type(attention).__name__} did not attend")


@torch.no_grad()
def received(attention: nn.Module, hidden: Tensor, **kwargs: Any) -> list[tuple[Tensor, Tensor]]:
    """Compute the attention that each token receives, and its key, for every segment that the module attends within.

    docs/method.md, 1.1, encoders without CLS. One segment (image, frame) is looked at after the other.

    Returns:
        Per segment: (B, n) float32, averaged over heads and summed over queries; (B, n, d) float32 keys, averaged
        over heads.
    """
    segments: list[tuple[Tensor, Tensor]] = []

    def note(query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        segments.append((column_sums(query, key, softmax, mask), key.float().mean(1)))

    _ask(attention, ("q_proj", "k_proj"), hidden, note, kwargs)
    return segments


def _ask(attention: Any, needed: tuple[str, ...], hidden: Tensor, note: Note, kwargs: dict[str, Any]) -> None:
    attention = unwrapped(attention)
    if takes(attention, "shared_kv_states"):
        kwargs = {"shared_kv_states": {}, **kwargs}  # where a layer puts what later ones borrow; nobody reads these
    # the class's forward: hooks are for the module's real calls, and a forward set on the instance is bound to it
    type(attention).forward(_recorder(attention, needed, note), hidden, **kwargs)
