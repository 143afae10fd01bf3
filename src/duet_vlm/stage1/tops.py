"""TOPS at the encoder: relevance, coverage and diversity."""

from __future__ import annotations

from ..config.registry import Stage1Method
from ..tensors.greedy_rules import balanced
from .common import Encoded, Merge, chosen, selected

METHOD = Stage1Method(
    name="tops", paper="2606.27161", needs=("scores", "features"), discards=True, one_by_one=True, order=6
)


def tops(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """TOPS (arXiv 2606.27161), its first stage: K1 + K2 tokens, kept unchanged.

    First the token with the highest score. Then always the one with the largest r + lambda cov + alpha div, each a
    multiple of its mean over the tokens that are left: r is the score, cov what the token would add to the coverage of
    the image (as in SCOPE, without its score), div 1 minus its largest cosine to those chosen so far. lambda is 1 and
    alpha 0.5. Features are the encoder's output. Ties take the earlier token.
    """
    return selected(encoded, chosen(encoded, balanced(encoded.scores), dominant + contextual))
