"""Stage 2, T2V: how much the question attends to each visual token, and which tokens that keeps. Tensors only.

A way to rank is a function `(Entrance) -> (B, n) scores`, higher is better, named in `RANKINGS` (docs/method.md, 2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..tensors.content_random import content, uniform
from ..tensors.streamed import Places, Softmax, block_size, column_sums, exact, wide
from ..tensors.tokens import pack, take


@dataclass
class Entrance:
    """What a ranking is given at the entrance of the layer that ranks.

    A row has n present tokens and q query tokens. Where a cache holds tokens of earlier calls, they take part in every
    softmax but are not scored: there are m keys in all, and the last n of them are scored.

    Attributes:
        query: (B, H, q, d) of the query tokens only, rotated.
        key: (B, Hkv, m, d) of every token, rotated.
        places: where both stand in the full sequence; -1 for queries that a row does not have, holes and padding.
        softmax: how the layer attends.
        hidden: (B, n, D) hidden states of every present token.
        questions: (B, q, D) those of the query tokens.
        visual: (B, n) bool, the visual tokens.
        average: (B, Hkv, n, d) the keys that the row's average visual token would have in every place; None where
            scores are not corrected for places.
        log_sizes: (B, m) the log of how many tokens each one stands for, added to its logits; None for nothing.
    """

    query: Tensor
    key: Tensor
    places: Places
    softmax: Softmax
    hidden: Tensor
    questions: Tensor
    visual: Tensor
    average: Tensor | None = None
    log_sizes: Tensor | None = None

    @property
    def past(self) -> int:
        """How many tokens of a cache stand in front."""
        return self.key.shape[2] - self.visual.shape[1]


def attention(seen: Entrance) -> Tensor:
    """DUET-VLM (arXiv 2602.18846), and by the choice of queries PyramidDrop and FastV: `text_to_vision`."""
    return _corrected(seen, seen.places)


def sparsevlm(seen: Entrance) -> Tensor:
    """SparseVLM (arXiv 2410.04417), section 3.2: only text that the image concerns may rate.

    Raters are the query tokens whose relevance is at least the mean. Relevance is how much the visual tokens point at
    each: a softmax over the text of the products of hidden states, averaged over visual tokens. The paper chooses
    raters once, by embeddings; here they are chosen at each ranking, by the hidden states there. Its adaptive ratios
    and its recycling of dropped tokens are not part of the scoring.
    """
    asked, relevance = seen.places.asked >= 0, _relevance(seen)
    mean = (relevance * asked).sum(1, keepdim=True) / asked.sum(1, keepdim=True).clamp(min=1)
    # equal relevances are all raters, whatever rounding does to their mean
    raters = asked & (relevance >= mean * (1 - 1e-5))
    return _corrected(seen, replace(seen.places, asked=seen.places.asked.masked_fill(~raters, -1)))


def _relevance(seen: Entrance) -> Tensor:
    """(B, q) how much the visual tokens point at each query token, a block of visual tokens after the other."""
    visual, _ = pack(seen.visual)
    questions, hole = wide(seen.questions).transpose(1, 2), seen.places.asked < 0
    relevance = questions.new_zeros(hole.shape)
    rows = max(1, block_size(hole.device) // max(1, hole.numel()))
    with exact(hole.device):
        for part in visual.split(rows, dim=1):
            logits = wide(take(seen.hidden, part)) @ questions
            pointing = logits.masked_fill_(hole[:, None], torch.finfo(logits.dtype).min).softmax(-1)
            relevance += pointing.masked_fill_((part < 0)[..., None], 0).sum(1)
    return relevance / seen.visual.sum(1, keepdim=True).clamp(min=1)


def keynorm(seen: Entrance) -> Tensor:
    """Minus the L2 norm of a token's key, averaged over heads (arXiv 2406.11430). No query is needed.

    The sign is the paper's finding: tokens whose keys are short get the most attention in later steps, so they stay.
    Rotary embeddings do not change a norm.
    """
    return -wide(seen.key[:, :, seen.past :]).norm(dim=-1).mean(1)


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
    """The mean of a row's visual tokens, in every place: (B, n, D) and (B, n) bool to (B, n, D); summed in float32."""
    total = wide(hidden).masked_fill(~visual[..., None], 0).sum(1, keepdim=True)
    return (total / visual.sum(1)[:, None, None].clamp(min=1)).to(hidden.dtype).expand_as(hidden)


def _corrected(seen: Entrance, places: Places) -> Tensor:
    """`text_to_vision`, divided by what the average visual token would get in each place where that is given.

    Attention falls off with distance, so that where a token stands decides part of its score. The average token has no
    content of its own: what it would get is the part of the place. It stands for itself alone: how many tokens a merged
    one stands for is part of its content.
    """
    scores = text_to_vision(seen.query, seen.key, places, seen.softmax, seen.log_sizes)[:, seen.past :]
    if seen.average is None:
        return scores
    average = torch.where(seen.visual[:, None, :, None], seen.average, seen.key[:, :, seen.past :])
    average = torch.cat([seen.key[:, :, : seen.past], average], dim=2)
    place = text_to_vision(seen.query, average, places, seen.softmax)[:, seen.past :]
    return scores / place.clamp(min=torch.finfo(place.dtype).tiny)


def text_to_vision(
    query: Tensor, key: Tensor, places: Places, softmax: Softmax, log_sizes: Tensor | None = None
) -> Tensor:
    """(B, m) attention that the query tokens pay to every token, averaged over heads, then over queries, in float32.

    docs/method.md, 2.2. A row without query tokens scores 0 everywhere.

    Args:
        query: (B, H, q, d) of the query tokens only, rotated.
        key: (B, Hkv, m, d) of every token, rotated.
        places: where both stand.
        softmax: how the layer attends.
        log_sizes: (B, m) added to the logits, as the layers do where `DuetConfig.proportional` is set: what is ranked
            is the attention that the layer pays. None for nothing.
    """
    sums = column_sums(query, key, softmax, places, log_sizes)
    return sums / (places.asked >= 0).sum(1, keepdim=True).clamp(min=1)


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
