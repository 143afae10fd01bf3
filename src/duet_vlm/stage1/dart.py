"""DART: a few pivots, and what duplicates none of them."""

from __future__ import annotations

import torch

from ..config.registry import Stage1Method
from ..tensors.streamed import wide
from .common import Encoded, Merge, at, cosines, directions, selected

PIVOTS = 8


METHOD = Stage1Method(name="dart", paper="2502.11494", needs=("keys", "features"), discards=True, order=6)


def dart(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """DART (arXiv 2502.11494): K1 + K2 tokens that duplicate each other little, kept unchanged; scores are not used.

    The tokens with the longest keys (by their L1 norm) are pivots. Then each pivot in turn, the longest first, keeps
    those of the tokens left that are the least similar to it, by the cosine of their features, all pivots as many as
    each other (later ones one more where that does not come out). The paper does this in the language model's second
    layer, with 4 visual tokens and 4 text tokens as pivots; at the encoder there is no text, and all 8 are visual.
    Ties take the earlier token.
    """
    retained = dominant + contextual
    pivots = min(PIVOTS, retained)
    lengths = wide(encoded.keys).abs().sum(-1)
    chosen = lengths.argsort(dim=1, descending=True, stable=True)[:, :pivots]
    direction = directions(encoded.features)
    similarity = cosines(at(direction, chosen), direction)
    taken = torch.zeros_like(lengths, dtype=torch.bool).scatter(1, chosen, True)
    rest = retained - pivots
    for pivot in range(pivots):
        count = rest * (pivot + 1) // pivots - rest * pivot // pivots
        order = similarity[:, pivot].nan_to_num(nan=2).masked_fill(taken, 3).argsort(dim=1, stable=True)
        chosen = torch.cat([chosen, order[:, :count]], dim=1)
        taken = taken.scatter(1, order[:, :count], True)
    return selected(encoded, chosen)
