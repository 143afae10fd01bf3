"""See the queries and keys of a transformers attention module, without running its attention.

The only user of `AttentionInterface`. The stock module computes them itself (its norms, projections and rotary
embedding); a shallow copy of it is asked, so that no other call on the module can notice.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

_RECORD = "duet_record"


class _OneHead(nn.Module):
    """Stands in for a projection whose result is not needed: one head of zeros."""

    def __init__(self, head_dim: int):
        super().__init__()
        self.head_dim = head_dim

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(1).expand(*x.shape[:-1], self.head_dim)


def _record(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, **kwargs: Any
) -> tuple[Tensor, None]:
    kwargs["seen"].append((query, key, kwargs.get("scaling")))
    return query.transpose(1, 2), None


def _recorder(attention: Any, needed: str) -> nn.Module:
    """A copy of the module that shares its weights, projects only what is needed and records instead of attending."""
    AttentionInterface.register(_RECORD, _record)  # a name nobody else uses; here, so that importing changes nothing
    recorder = copy.copy(attention)
    modules = dict(attention._modules)
    for name in ("q_proj", "k_proj", "v_proj"):
        if name != needed and name in modules:
            modules[name] = _OneHead(attention.head_dim)
    for name in ("o_proj", "out_proj"):
        if name in modules:
            modules[name] = nn.Identity()
    config = copy.copy(attention.config)
    config._attn_implementation_internal = _RECORD
    recorder.__dict__.update(_modules=modules, config=config)
    return recorder


@torch.no_grad()
def queries(attention: nn.Module, hidden: Tensor, **kwargs: Any) -> tuple[Tensor, float]:
    """(B, H, n, d) queries of `hidden` (B, n, D), normed and rotated as the module does, and its scaling."""
    query, _, scaling = _ask(attention, "q_proj", hidden, kwargs)
    return query, query.shape[-1] ** -0.5 if scaling is None else scaling


@torch.no_grad()
def keys(attention: nn.Module, hidden: Tensor, **kwargs: Any) -> Tensor:
    """(B, Hkv, n, d) keys of `hidden` (B, n, D), normed and rotated as the module does."""
    return _ask(attention, "k_proj", hidden, kwargs)[1]


def _ask(attention: nn.Module, needed: str, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Any]:
    seen: list[tuple[Tensor, Tensor, Any]] = []
    # the class's forward: hooks are for the module's real calls, and a forward set on the instance is bound to it
    recorder = _recorder(attention, needed)
    type(attention).forward(recorder, hidden_states=hidden, attention_mask=None, seen=seen, **kwargs)
    return seen[0]


def weights(query: Tensor, key: Tensor, attend: Tensor | None, scaling: float) -> Tensor:
    """Softmax attention in float32, averaged over heads.

    Args:
        query: (B, H, q, d).
        key: (B, Hkv, n, d), each shared by H / Hkv query heads.
        attend: (B, q, n) bool, or None for everything.
        scaling: factor on the logits.

    Returns:
        (B, q, n), at least float32.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    batch, heads, asked, width = query.shape
    grouped = query.to(wide).reshape(batch, key.shape[1], -1, width)
    logits = (grouped @ key.to(wide).transpose(-1, -2) * scaling).view(batch, heads, asked, key.shape[2])
    if attend is not None:
        logits = logits.masked_fill(~attend[:, None], -torch.inf)
    return logits.softmax(-1).mean(1)
