"""Stage 2, T2V: how much the question attends to each visual token, and which tokens that keeps. Tensors only.

A way to rank is a function `(Entrance) -> (B, n) scores`, higher is better, named in `RANKINGS`. METHOD: "Stage 2".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import weights
from .seeded import content, uniform


@dataclass
class Entrance:
    """What is seen at the entrance of the layer that ranks: n tokens present, q query tokens a row.

    Attributes:
        query: (B, H, q, d) of the query tokens only, rotated.
        key: (B, Hkv, n, d) of every present token, rotated.
        attend: (B, q, n) bool, which tokens each query may see (causal, no padding).
        asked: (B, q) bool, False where a row has fewer query tokens.
        scaling: factor on the logits, as the layer uses it.
        hidden: (B, n, D) hidden states of every present token.
        questions: (B, q, D) those of the query tokens.
        visual: (B, n) bool, the visual tokens.
        average: (B, Hkv, n, d) keys, were the average visual token of the row in every place; None where scores are not
            corrected for places.
        log_sizes: (B, n) added to the logits of every token, log of how many it stands for; None for nothing.
        past: how many columns of `key`, `attend` and `log_sizes` stand in front for tokens that a cache holds: they
            take part in every softmax, and are not scored.
    """

    query: Tensor
    key: Tensor
    attend: Tensor
    asked: Tensor
    scaling: float
    hidden: Tensor
    questions: Tensor
    visual: Tensor
    average: Tensor | None = None
    log_sizes: Tensor | None = None
    past: int = 0


def attention(seen: Entrance) -> Tensor:
    """DUET-VLM (arXiv 2602.18846), and by the choice of queries PyramidDrop and FastV: `text_to_vision`."""
    return _corrected(seen, seen.asked)


def sparsevlm(seen: Entrance) -> Tensor:
    """SparseVLM (arXiv 2410.04417), section 3.2: only text that the image concerns may rate.

    Raters are the query tokens whose relevance is at least the mean. Relevance is how much the visual tokens point at
    each: a softmax over the text of the products of hidden states, averaged over visual tokens. The paper chooses
    raters once, by embeddings; here they are chosen at each ranking, by the hidden states there. Its adaptive ratios
    and its recycling of dropped tokens are not part of the scoring.
    """
    wide = torch.promote_types(seen.hidden.dtype, torch.float32)
    logits = seen.hidden.to(wide) @ seen.questions.to(wide).transpose(1, 2)
    pointing = logits.masked_fill(~seen.asked[:, None], torch.finfo(wide).min).softmax(-1)
    relevance = (pointing * seen.visual[..., None]).sum(1) / seen.visual.sum(1, keepdim=True).clamp(min=1)
    mean = (relevance * seen.asked).sum(1, keepdim=True) / seen.asked.sum(1, keepdim=True).clamp(min=1)
    # equal relevances are all raters, whatever rounding does to their mean
    return _corrected(seen, seen.asked & (relevance >= mean * (1 - 1e-5)))


def keynorm(seen: Entrance) -> Tensor:
    """Minus the L2 norm of a token's key, averaged over heads (arXiv 2406.11430). No query is needed.

    The sign is the paper's finding: tokens whose keys are short get the most attention in later steps, so they stay.
    Rotary embeddings do not change a norm.
    """
    return -seen.key.float().norm(dim=-1).mean(1)


def random(seen: Entrance) -> Tensor:
    """A random order, which depends on the seed of torch's global generator and on the row's visual tokens alone."""
    ordinal = (seen.visual.cumsum(1) - 1).clamp(min=0)
    # as if the row had no padding and no text: where a token stands among the visual ones says who it is
    visual = seen.hidden.float().masked_fill(~seen.visual[..., None], -torch.inf)
    who = ordinal.gather(1, content(visual))
    return uniform(who, seen.visual.shape[1]).gather(1, ordinal)


RANKINGS: dict[str, Callable[[Entrance], Tensor]] = {
    "attention": attention,
    "sparsevlm": sparsevlm,
    "keynorm": keynorm,
    "random": random,
}


def average_token(hidden: Tensor, visual: Tensor) -> Tensor:
    """(B, n, D): in every place the mean of the row's visual tokens."""
    share = visual / visual.sum(1, keepdim=True).clamp(min=1)
    return (share.to(hidden.dtype)[:, None] @ hidden).expand_as(hidden)


def _corrected(seen: Entrance, asked: Tensor) -> Tensor:
    """`text_to_vision`, divided by what the average visual token would get in each place where that is given.

    Attention falls off with distance, so that where a token stands decides part of its score. The average token has no
    content of its own: what it would get is the part of the place. It stands for itself alone: how many tokens a merged
    one stands for is part of its content.
    """
    scores = text_to_vision(seen.query, seen.key, seen.attend, asked, seen.scaling, seen.log_sizes)
    if seen.average is None:
        return scores
    average = torch.where(seen.visual[:, None, :, None], seen.average, seen.key[:, :, seen.past :])
    average = torch.cat([seen.key[:, :, : seen.past], average], dim=2)
    place = text_to_vision(seen.query, average, seen.attend, asked, seen.scaling)
    return scores / place.clamp(min=torch.finfo(place.dtype).tiny)


def text_to_vision(
    query: Tensor, key: Tensor, attend: Tensor, asked: Tensor, scaling: float, log_sizes: Tensor | None = None
) -> Tensor:
    """(B, n) attention that the query tokens pay to every token, averaged over heads, then over queries.

    METHOD, "Stage 2", 2. A row without query tokens scores 0 everywhere.

    Args:
        query: (B, H, q, d) of the query tokens only, rotated.
        key: (B, Hkv, n, d) of every present token, rotated.
        attend: (B, q, n) bool, which tokens each query may see (causal, no padding).
        asked: (B, q) bool, False where a row has fewer query tokens.
        scaling: factor on the logits, as the layer uses it.
        log_sizes: (B, n) added to the logits, as the layers do where `DuetConfig.proportional` is set: what is ranked
            is the attention that the layer pays. None for nothing.
    """
    attention = weights(query, key, attend | ~asked[..., None], scaling, log_sizes)
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
