"""DivPrune: tokens that differ as much as possible."""

from __future__ import annotations

from ..config.registry import Stage1Method
from ..tensors.greedy_rules import Worth
from .common import Encoded, Merge, chosen, selected

METHOD = Stage1Method(name="divprune", paper="2503.02175", needs=("features",), discards=True, one_by_one=True, order=6)


def divprune(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """DivPrune (arXiv 2503.02175): K1 + K2 tokens that are far from each other, kept unchanged; scores are not used.

    The max-min diversity problem, solved greedily as in its section 3: first the token whose nearest neighbour is the
    farthest, then always the one farthest from all chosen so far, by the cosine distance of the features (of the
    encoder's output; the paper measures after the projector). Ties take the earlier token.
    """
    places = chosen(encoded, Worth(distance=1.0, lonely=True), dominant + contextual)
    return selected(encoded, places)
