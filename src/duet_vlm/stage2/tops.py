"""TOPS in the language model: relevance to the question, coverage and diversity."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from ..config.registry import Ranking
from ..config.schedule import Schedule
from ..tensors.greedy import greedy
from ..tensors.greedy_rules import balanced
from ..tensors.streamed import wide
from .attention import attention
from .ranking import RankingInputs
from .selection import select

RANKING = Ranking(name="tops", paper="2606.27161", debias=True)
# layers 12 and 24 of 32; of 2T tokens, T and T/4
METHOD = Schedule(
    name="tops",
    paper="2606.27161",
    ratios={"12/32": 0.5, "24/32": 0.125},
    nearest=True,
    query="all",
    ranking="tops",
)


def tops(inputs: RankingInputs) -> Tensor:
    """TOPS (arXiv 2606.27161), its second stage: a set, chosen as at the encoder (`stage1/tops.py`).

    The relevance of a token is the attention that the query tokens pay to it, as in `attention`; similarity is the
    cosine of the hidden states that enter the layer.
    """
    relevance = attention(inputs)
    return select(
        inputs,
        lambda images: greedy(
            balanced(images.of(relevance)), normalize(wide(images.of(inputs.hidden)), dim=-1), images.count
        ),
    )
