"""SCOPE: salient tokens that cover the image."""

from __future__ import annotations

from ..config.registry import Stage1Method
from ..tensors.greedy_rules import Worth
from .common import Encoded, Merge, chosen, selected

METHOD = Stage1Method(
    name="scope", paper="2510.24214", needs=("scores", "features"), discards=True, one_by_one=True, order=6
)


def scope(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """SCOPE (arXiv 2510.24214): K1 + K2 tokens, kept unchanged, each the most salient of what is not covered yet.

    A token covers another one as far as their features are similar (cosine, of the encoder's output). The next token is
    always the one with the largest product of its score and of what it would add to the coverage of the image: the sum
    over all tokens j of max(0, cosine_ij - c_j), where c_j is how far j is covered by those chosen so far. The paper's
    exponent of the score, alpha, is 1. Ties take the earlier token.
    """
    rule = Worth(cover=encoded.scores, floor=0.0)
    return selected(encoded, chosen(encoded, rule, dominant + contextual))
