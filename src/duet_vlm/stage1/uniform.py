"""Places evenly spread over the image, whatever is there."""

from __future__ import annotations

import torch

from ..config.registry import Stage1Method
from .cells import cells
from .common import Encoded, Merge, selected

METHOD = Stage1Method(name="uniform", needs=("grid",), discards=True, order=3)


def uniform(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """A grid: the middle token of each of K1 + K2 cells, kept unchanged. The baseline that needs no score."""
    middles = torch.tensor(cells(encoded.tokens, encoded.grid, dominant + contextual)[0], device=encoded.scores.device)
    return selected(encoded, middles.long().expand(len(encoded.scores), -1))
