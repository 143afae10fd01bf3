"""Stage 2, T2V: how much the question attends to each visual token, and which tokens that keeps. Tensors only.

A way to rank is a function `(RankingInputs) -> (B, n)` that gives scores, higher is better, or a set of tokens
(`stage2.selection.select` makes one); its file has its row (docs/method.md, 2.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.registry import Ranking, called
from ..errors import DuetError, short, shown
from ..tensors.streamed import Places, Softmax, column_sums, wide


@dataclass(kw_only=True)
class RankingInputs:
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
        spans: (B, n) long, the number of each visual token's image or video, 0 for other tokens.
        limits: (spans + 1,) long, how many tokens of each image or video the drop keeps; its first entry is no image.
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
    spans: Tensor
    limits: Tensor
    average: Tensor | None = None
    log_sizes: Tensor | None = None

    @property
    def past(self) -> int:
        """How many tokens of a cache stand in front."""
        return self.key.shape[2] - self.visual.shape[1]


def ranked(row: Ranking, inputs: RankingInputs) -> Tensor:
    """Score the tokens (B, n) by a method; the best are kept. A set counts as 1 for what is in it and 0 for the rest.

    Raises:
        DuetError: a method of one's own that gives neither scores nor a set, or a set of another size.
    """
    scores: Tensor = row.load()(inputs)
    if isinstance(row.function, str):
        return scores.float() if scores.dtype == torch.bool else scores
    name, shape = row.name or called(row.function), tuple(inputs.visual.shape)
    if (
        not isinstance(scores, Tensor)
        or scores.shape != inputs.visual.shape
        or not (scores.is_floating_point() or scores.dtype == torch.bool)
    ):
        raise DuetError(
            f"ranking {name} must return {shape} floating scores or a bool set, one for each token present, and it "
            f"returned {_what(scores)}."
        )
    if scores.dtype != torch.bool:
        return scores
    counts = torch.zeros_like(inputs.limits).scatter_add(0, inputs.spans.flatten(), scores.flatten().long())
    wanted = inputs.limits.index_fill(0, counts.new_zeros(1), 0)
    if not torch.equal(counts, wanted):
        raise DuetError(
            f"ranking {name} chose {short(str(counts.tolist()))} tokens of text and of each image, and the drop keeps "
            f"{short(str(wanted.tolist()))}: choose as many as inputs.limits says, and no text."
        )
    return scores.float()


def _what(result: object) -> str:
    return f"{tuple(result.shape)} of {result.dtype}" if isinstance(result, Tensor) else shown(result)


def average_token(hidden: Tensor, visual: Tensor) -> Tensor:
    """Put the mean of a row's visual tokens in every place: (B, n, D), summed in float32. `visual` is (B, n) bool."""
    total = wide(hidden).masked_fill(~visual[..., None], 0).sum(1, keepdim=True)
    return (total / visual.sum(1)[:, None, None].clamp(min=1)).to(hidden.dtype).expand_as(hidden)


def corrected(inputs: RankingInputs, places: Places) -> Tensor:
    """Compute `text_to_vision`, divided by what the average visual token would get in each place, where that is given.

    Attention falls off with distance, so that where a token stands decides part of its score. The average token has no
    content of its own: what it would get is the part of the place. It stands for itself alone: how many tokens a merged
    one stands for is part of its content.
    """
    scores = text_to_vision(inputs.query, inputs.key, places, inputs.softmax, inputs.log_sizes)[:, inputs.past :]
    if inputs.average is None:
        return scores
    average = torch.where(inputs.visual[:, None, :, None], inputs.average, inputs.key[:, :, inputs.past :])
    average = torch.cat([inputs.key[:, :, : inputs.past], average], dim=2)
    place = text_to_vision(inputs.query, average, places, inputs.softmax)[:, inputs.past :]
    return scores / place.clamp(min=torch.finfo(place.dtype).tiny)


def text_to_vision(
    query: Tensor, key: Tensor, places: Places, softmax: Softmax, log_sizes: Tensor | None = None
) -> Tensor:
    """Average the attention of the query tokens to every token over heads, then over queries: (B, m) float32.

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
    return sums / (places.queries >= 0).sum(1, keepdim=True).clamp(min=1)


def top_per_span(scores: Tensor, spans: Tensor, limits: Tensor) -> Tensor:
    """Mark the `limits` best tokens of every span: (B, n) bool. Ties keep the earlier token.

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
