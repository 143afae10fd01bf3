"""Stage 2, T2V: how much the question attends to each visual token, and which tokens that keeps. Tensors only."""

from __future__ import annotations

import torch
from torch import Tensor

from .attention import weights


def text_to_vision(query: Tensor, key: Tensor, attend: Tensor, asked: Tensor, scaling: float) -> Tensor:
    """(B, n) attention that the query tokens pay to every token, averaged over heads, then over queries.

    METHOD, "Stage 2", 2. A row without query tokens scores 0 everywhere.

    Args:
        query: (B, H, q, d) of the query tokens only, rotated.
        key: (B, Hkv, n, d) of every present token, rotated.
        attend: (B, q, n) bool, which tokens each query may see (causal, no padding).
        asked: (B, q) bool, False where a row has fewer query tokens.
        scaling: factor on the logits, as the layer uses it.
    """
    attention = weights(query, key, attend | ~asked[..., None], scaling)
    return (attention * asked[..., None]).sum(1) / asked.sum(1, keepdim=True).clamp(min=1)


def best(scores: Tensor, spans: Tensor, limits: Tensor) -> Tensor:
    """(B, n) bool: the `limits` best tokens of every span; ties keep the earlier token.

    Args:
        scores: (B, n), higher is better.
        spans: (B, n) long, the number of each token's image or video, 0 for what is no visual token.
        limits: (spans + 1,) long, how many tokens each span keeps.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    # stable twice: sorted by span, and by score within a span
    order = order.gather(1, spans.gather(1, order).argsort(dim=1, stable=True))
    sorted_spans = spans.gather(1, order)
    n = torch.arange(spans.shape[1], device=spans.device).expand_as(spans)
    starts = torch.cat([torch.ones_like(spans[:, :1], dtype=torch.bool), sorted_spans.diff(dim=1) != 0], dim=1)
    rank = n - n.masked_fill(~starts, 0).cummax(1).values
    keep = (rank < limits[sorted_spans]) & (sorted_spans > 0)
    return torch.zeros_like(keep).scatter(1, order, keep)
