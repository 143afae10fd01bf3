"""VisionZip's stage 1: global clusters."""

from __future__ import annotations

from ..config.registry import Stage1Method
from .common import Encoded, Merge, join, spaced

METHOD = Stage1Method(
    name="visionzip",
    paper="2412.04467",
    contextual="5/32",  # 162 : 30
    needs=("scores", "keys"),
    scored=True,
    averages="contextual",
    order=1,
)


def visionzip(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """VisionZip (arXiv 2412.04467): every other token is in the pool, anchors evenly spaced in image order.

    Takes what `duet` takes; `cluster_width` has no meaning here.
    """
    order = encoded.scores.argsort(dim=1, descending=True, stable=True)
    pool = order[:, dominant:].sort(dim=1).values if contextual else order[:, :0]
    return join(encoded, order[:, :dominant], *spaced(pool, contextual))
