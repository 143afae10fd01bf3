"""Maximal marginal relevance: salient tokens unlike those already chosen."""

from __future__ import annotations

from ..config.registry import Stage1Method
from ..tensors.greedy_rules import Worth
from .common import Encoded, Merge, chosen, scaled, selected

IMPORTANCE = 0.5  # lambda


METHOD = Stage1Method(
    name="mmr", paper="2602.13315", needs=("scores", "features"), discards=True, one_by_one=True, order=6
)


def mmr(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """IDPruner (arXiv 2602.13315): K1 + K2 tokens by maximal marginal relevance, kept unchanged.

    The next token is always the one with the largest lambda * importance - (1 - lambda) * its largest cosine to those
    chosen so far, where importance is scaled to 0 to 1 within the image and lambda is 0.5. The paper's importance comes
    from a small network that it trains; here it is the score, so nothing is trained. Features are the encoder's output.
    Ties take the earlier token.
    """
    importance = scaled(encoded.scores)
    rule = Worth(base=IMPORTANCE * importance, distance=1 - IMPORTANCE, first=importance)
    return selected(encoded, chosen(encoded, rule, dominant + contextual))
