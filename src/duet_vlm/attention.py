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

_RECORD = "duet_record"
_BLOCK = 2**22  # attention weights held at a time, in float32: 16 MB

Note = Callable[[Tensor, Tensor, Tensor | None, float], None]


class _Zeros(nn.Module):
    """Stands in for a projection whose result is not needed."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(1).expand(*x.shape[:-1], self.width)


def _record(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **kwargs: Any
) -> tuple[Tensor, None]:
    scaling = kwargs.get("scaling")
    note: Any = module.duet_note  # on the recorder, because some modules hand their kwargs to nobody
    note(query, key, attention_mask, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return query.transpose(1, 2), None


def _recorder(attention: Any, needed: tuple[str, ...], note: Note, rotated: bool) -> nn.Module:
    """A copy of the module that shares its weights, projects only what is needed and records instead of attending."""
    AttentionInterface.register(_RECORD, _record)  # a name nobody else uses; here, so that importing changes nothing
    recorder = copy.copy(attention)
    modules = dict(attention._modules)
    for name in ("q_proj", "k_proj", "v_proj"):
        if name not in needed and name in modules:
            # rotary embeddings cost time on every head; without them zeros are free, and some modules count their heads
            modules[name] = _Zeros(attention.head_dim if rotated else modules[name].out_features)
    for name in ("o_proj", "out_proj", "proj", "projection_layer"):
        if name in modules:
            modules[name] = nn.Identity()
    config = copy.copy(attention.config)
    config._attn_implementation_internal = _RECORD
    recorder.__dict__.update(_modules=modules, config=config, duet_note=note)
    return recorder


@torch.no_grad()
def queries(attention: nn.Module, hidden: Tensor, **kwargs: Any) -> tuple[Tensor, float]:
    """(B, H, n, d) queries of `hidden` (B, n, D), normed and rotated as the module does, and its scaling."""
    seen: list[tuple[Tensor, float]] = []
    note: Note = lambda query, key, mask, scaling: seen.append((query, scaling))  # noqa: E731
    _ask(attention, ("q_proj",), hidden, note, _unmasked(kwargs))
    return seen[0]


@torch.no_grad()
def keys(attention: nn.Module, hidden: Tensor, **kwargs: Any) -> Tensor:
    """(B, Hkv, n, d) keys of `hidden` (B, n, D), normed and rotated as the module does."""
    seen: list[Tensor] = []
    _ask(attention, ("k_proj",), hidden, lambda query, key, mask, scaling: seen.append(key), _unmasked(kwargs))
    return seen[0]


@torch.no_grad()
def received(attention: nn.Module, hidden: Tensor, **kwargs: Any) -> list[tuple[Tensor, Tensor]]:
    """The attention that each token receives, and its key, for every segment that the module attends within.

    METHOD, "Stage 1", 1, encoders without CLS. One segment (image, frame) is looked at after the other.

    Returns:
        Per segment: (B, n) float32, averaged over heads and summed over queries; (B, n, d) float32 keys, averaged
        over heads.
    """
    segments: list[tuple[Tensor, Tensor]] = []

    def note(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> None:
        segments.append((column_sums(query, key, mask, scaling), key.float().mean(1)))

    _ask(attention, ("q_proj", "k_proj"), hidden, note, kwargs)
    return segments


def _unmasked(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "attention_mask": None}


def _ask(attention: nn.Module, needed: tuple[str, ...], hidden: Tensor, note: Note, kwargs: dict[str, Any]) -> None:
    # the class's forward: hooks are for the module's real calls, and a forward set on the instance is bound to it
    recorder = _recorder(attention, needed, note, rotated="position_embeddings" in kwargs)
    type(attention).forward(recorder, hidden, **kwargs)


def column_sums(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """(B, n) softmax attention in float32 that each key receives, averaged over heads and summed over queries.

    Streamed over query blocks, so memory is that of one block, never that of an n x n map.

    Args:
        query, key: (B, H, n, d), as many key heads as query heads.
        mask: (B, 1, n, n) or broadcastable, bool or additive, or None.
        scaling: factor on the logits.
    """
    batch, heads, length, _ = query.shape
    sums = torch.zeros(batch, length, device=query.device)
    together = max(1, min(heads, _BLOCK // length**2))  # heads
    rows = max(1, min(length, _BLOCK // (together * length)))
    for image in range(batch):
        for first in range(0, heads, together):
            across = key[image, first : first + together].float().transpose(-1, -2)
            for row in range(0, length, rows):
                logits = query[image, first : first + together, row : row + rows].float() @ across * scaling
                if mask is not None:
                    there = mask[min(image, len(mask) - 1), :, row : row + rows]
                    logits = logits.masked_fill(~there, -torch.inf) if there.dtype == torch.bool else logits + there
                sums[image] += logits.softmax(-1).sum((0, 1))
    return sums / heads


def weights(
    query: Tensor, key: Tensor, attend: Tensor | None, scaling: float, bias: Tensor | None = None
) -> Tensor:
    """Softmax attention in float32, averaged over heads.

    Args:
        query: (B, H, q, d).
        key: (B, Hkv, n, d), each shared by H / Hkv query heads.
        attend: (B, q, n) bool, or None for everything.
        scaling: factor on the logits.
        bias: (B, n) added to the logits of every key, or None.

    Returns:
        (B, q, n), at least float32.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    batch, heads, asked, width = query.shape
    grouped = query.to(wide).reshape(batch, key.shape[1], -1, width)
    logits = (grouped @ key.to(wide).transpose(-1, -2) * scaling).view(batch, heads, asked, key.shape[2])
    if bias is not None:
        logits = logits + bias[:, None, None]
    if attend is not None:
        logits = logits.masked_fill(~attend[:, None], -torch.inf)
    return logits.softmax(-1).mean(1)
