"""SparseVLM: the attention of the text that the image concerns."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..config.registry import Ranking
from ..config.schedule import Schedule
from ..tensors.streamed import block_size, exact, wide
from ..tensors.tokens import pack, take
from .ranking import RankingInputs, corrected

RANKING = Ranking(name="sparsevlm", paper="2410.04417", debias=True, order=1)
# layers 2, 6 and 15 of 32; 300, 200 and 110 of 576 tokens
METHOD = Schedule(
    name="sparsevlm",
    paper="2410.04417",
    ratios={"2/32": 0.52, "6/32": 0.35, "15/32": 0.19},
    nearest=True,
    query="all",
    ranking="sparsevlm",
    order=3,
)


def sparsevlm(inputs: RankingInputs) -> Tensor:
    """SparseVLM (arXiv 2410.04417), section 3.2: only text that the image concerns may rate.

    Raters are the query tokens whose relevance is at least the mean. Relevance is how much the visual tokens point at
    each: a softmax over the text of the products of hidden states, averaged over visual tokens. The paper chooses
    raters once, by embeddings; here they are chosen at each ranking, by the hidden states there. Its adaptive ratios
    and its recycling of dropped tokens are not part of the scoring.
    """
    is_query, relevance = inputs.places.queries >= 0, _relevance(inputs)
    mean = (relevance * is_query).sum(1, keepdim=True) / is_query.sum(1, keepdim=True).clamp(min=1)
    # equal relevances are all raters, whatever rounding does to their mean
    raters = is_query & (relevance >= mean * (1 - 1e-5))
    return corrected(inputs, replace(inputs.places, queries=inputs.places.queries.masked_fill(~raters, -1)))


def _relevance(inputs: RankingInputs) -> Tensor:
    """Measure how much the visual tokens point at each query token, (B, q), one block of visual tokens at a time."""
    visual, _ = pack(inputs.visual)
    questions, hole = wide(inputs.questions).transpose(1, 2), inputs.places.queries < 0
    relevance = questions.new_zeros(hole.shape)
    per_block = max(1, block_size(hole.device) // max(1, hole.numel()))
    with exact(hole.device):
        for part in visual.split(per_block, dim=1):
            logits = wide(take(inputs.hidden, part)) @ questions
            pointing = logits.masked_fill_(hole[:, None], torch.finfo(logits.dtype).min).softmax(-1)
            relevance += pointing.masked_fill_((part < 0)[..., None], 0).sum(1)
    return relevance / inputs.visual.sum(1, keepdim=True).clamp(min=1)
