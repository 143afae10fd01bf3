"""Average pooling."""

from __future__ import annotations

import torch

from ..config.registry import Stage1Method
from .cells import cells
from .common import Encoded, Merge

METHOD = Stage1Method(name="pool", paper="2408.03326", needs=("grid",), averages="always", order=4)


def pool(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """Average pooling: the mean of each of K1 + K2 rectangular cells of near equal size, in raster order.

    What a pooling projector does, for example in LLaVA-OneVision's videos (arXiv 2408.03326); here for any count.
    """
    middles, owners = cells(encoded.tokens, encoded.grid, dominant + contextual)
    others = [place for place in range(encoded.tokens) if middles[owners[place]] != place] if middles else []
    batch, device = len(encoded.scores), encoded.scores.device

    def repeated(numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device).expand(batch, -1)

    anchors, members, joins = repeated(list(middles)), repeated(others), repeated([owners[place] for place in others])
    averaged = torch.ones_like(anchors, dtype=torch.bool)
    return Merge(encoded.scores, anchors[:, :0], anchors, members, joins, averaged=averaged)
