"""DivPrune: tokens that differ as much as possible."""

from __future__ import annotations

import torch

from ..config.registry import Stage1Method
from .common import Encoded, Merge, at, blocks, cosines, directions, farthest_first, selected

METHOD = Stage1Method(name="divprune", paper="2503.02175", needs=("features",), discards=True, order=6)


def divprune(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """DivPrune (arXiv 2503.02175): K1 + K2 tokens that are far from each other, kept unchanged; scores are not used.

    The max-min diversity problem, solved greedily as in its section 3: first the token whose nearest neighbour is the
    farthest, then always the one farthest from all chosen so far, by the cosine distance of the features (of the
    encoder's output; the paper measures after the projector). Ties take the earlier token.
    """
    direction = directions(encoded.features)
    everyone = torch.arange(encoded.tokens, device=direction.device).expand(len(direction), -1)
    gap = torch.cat([_gaps(direction, part) for part in blocks(everyone, encoded.tokens)], dim=1)

    def distance(place: torch.Tensor) -> torch.Tensor:
        return 1 - cosines(at(direction, place), direction)[:, 0]

    return selected(encoded, farthest_first(gap, dominant + contextual, distance))


def _gaps(direction: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Measure how far the nearest neighbour of each token at places `part` (B, n) is: (B, n)."""
    distance = 1 - cosines(at(direction, part), direction)
    return distance.scatter_(2, part[..., None], torch.inf).amin(-1)
