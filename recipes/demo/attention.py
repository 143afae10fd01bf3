"""Attention for training on a CPU: plain bfloat16 matrix products; torch's CPU sdpa backward is far slower.

The decoder variant also knows the packed layout: one image prefix, then questions that see the prefix and themselves.
It is registered under a name of its own when a training run starts; nothing is changed at import.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

NAME = "duet_demo_packed"


@dataclass
class Packing:
    """The layout of a packed batch, and a place for the attention weights that hints are scored on.

    What comes before the last Q tokens is the prefix; it gets shorter where a layer drops visual tokens.
    `causal` [P, P]: additive mask of the longest prefix.  `visible` [B, 1, Q, Q]: among the Q question tokens.
    `record`: layers whose question rows are kept in `weights` as [B, heads, Q, prefix + Q].
    """

    causal: Tensor
    visible: Tensor
    record: frozenset[int] = frozenset()
    weights: dict[int, Tensor] = field(default_factory=dict)


def _softmax(scores: Tensor) -> Tensor:
    with torch.autocast(
        scores.device.type, enabled=False
    ):  # autocast would widen to float32 and double the memory traffic
        return torch.softmax(scores, -1)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    packing: Packing | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of [B, heads, S, head size] tensors -> [B, S, heads, head size]; full without `packing` (the tower)."""
    query = query * scaling
    if packing is None:
        out = _softmax(query @ key.transpose(-1, -2)) @ value
        return out.transpose(1, 2).contiguous(), None
    p = query.shape[2] - packing.visible.shape[-1]
    image_key, image_value = key[:, :, :p], value[:, :, :p]
    image_out = _softmax(query[:, :, :p] @ image_key.transpose(-1, -2) + packing.causal[:p, :p]) @ image_value
    asked = query[:, :, p:]
    to_image = asked @ image_key.transpose(-1, -2)
    to_text = asked @ key[:, :, p:].transpose(-1, -2) + packing.visible
    weights = _softmax(torch.cat([to_image, to_text], -1))
    if module.layer_idx in packing.record:
        packing.weights[int(module.layer_idx)] = weights
    out = torch.cat([image_out, weights @ value], 2)
    return out.transpose(1, 2).contiguous(), None


def register() -> None:
    """Make the function known to transformers under NAME."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
