"""Short keys first."""

from __future__ import annotations

from torch import Tensor

from ..config.registry import Ranking
from ..config.schedule import Schedule
from ..tensors.streamed import wide
from .ranking import RankingInputs

RANKING = Ranking(name="keynorm", paper="2406.11430", order=2)
# the paper leaves the first two layers whole
METHOD = Schedule(name="keynorm", paper="2406.11430", ratios={2: 0.5}, query="last", ranking="keynorm", order=4)


def keynorm(inputs: RankingInputs) -> Tensor:
    """Minus the L2 norm of a token's key, averaged over heads (arXiv 2406.11430). No query is needed.

    The sign is the paper's finding: tokens whose keys are short get the most attention in later steps, so they stay.
    Rotary embeddings do not change a norm.
    """
    norms: Tensor = wide(inputs.key[:, :, inputs.past :]).norm(dim=-1)
    return -norms.mean(1)
