"""Places evenly spread over the image, whatever is there."""

from __future__ import annotations

import torch

from .cells import cells
from .common import Encoded, Merge, selected


def uniform(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """A grid: the middle token of each of K1 + K2 cells, kept unchanged. The baseline that needs no score."""
    middles = torch.tensor(cells(encoded.tokens, encoded.grid, dominant + contextual)[0], device=encoded.scores.device)
    return selected(encoded, middles.long().expand(len(encoded.scores), -1))
