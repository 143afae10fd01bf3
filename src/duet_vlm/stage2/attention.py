"""The attention that the question pays: DUET-VLM's ranking, and by the choice of queries PyramidDrop's and FastV's."""

from __future__ import annotations

from torch import Tensor

from ..config.registry import Ranking
from .ranking import RankingInputs, corrected

RANKING = Ranking(name="attention", paper="2602.18846", debias=True, order=0)


def attention(inputs: RankingInputs) -> Tensor:
    """DUET-VLM (arXiv 2602.18846): `text_to_vision`."""
    return corrected(inputs, inputs.places)
