"""DUET-VLM's stage 1: local clusters."""

from __future__ import annotations

from ..config.registry import Stage1Method
from .common import Encoded, Merge, join, spaced

METHOD = Stage1Method(
    name="duet",
    paper="2602.18846",
    contextual="1/6",
    needs=("scores", "keys"),
    scored=True,
    discards=True,
    averages="pool",
    order=0,
)


def duet(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """DUET-VLM (arXiv 2602.18846): a pool of `cluster_width * contextual` runners-up, anchors spaced in score order.

    Args:
        encoded: the images; `scores` rank, `keys` tell what is similar.
        dominant: K1, tokens kept unchanged.
        contextual: K2, tokens merged from the pool.
        cluster_width: w; what ranks below the pool is discarded.
    """
    order = encoded.scores.argsort(dim=1, descending=True, stable=True)
    pool = order[:, dominant : dominant + min(cluster_width * contextual, encoded.tokens - dominant)]
    return join(encoded, order[:, :dominant], *spaced(pool, contextual))
