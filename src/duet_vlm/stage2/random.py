"""The baseline that every ranking must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.registry import Ranking
from ..config.schedule import Schedule
from ..tensors.content_random import draw, row_content
from .ranking import RankingInputs

RANKING = Ranking(name="random", order=3)
METHOD = Schedule(name="random", ratios={"1/2": None, "3/4": None}, query="last", ranking="random", order=5)


def random(inputs: RankingInputs) -> Tensor:
    """A random order, which depends on the seed of torch's global generator and on the row's visual tokens alone."""
    ordinal = (inputs.visual.cumsum(1) - 1).clamp(min=0)
    # as if the row had no padding and no text: where a token stands among the visual ones says who it is
    visual = inputs.hidden.float().masked_fill(~inputs.visual[..., None], -torch.inf)
    who = ordinal.gather(1, row_content(visual))
    return draw(who, inputs.visual.shape[1]).gather(1, ordinal)
