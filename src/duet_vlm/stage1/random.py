"""The baseline every method must beat."""

from __future__ import annotations

from dataclasses import replace

from ..config.registry import Stage1Method
from ..tensors.content_random import draw, row_content
from .common import Encoded, Merge
from .duet import duet

METHOD = Stage1Method(name="random", needs=("keys", "features"), discards=True, averages="pool", order=2)


def random(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """`duet` with random scores: with `contextual=0`, a random selection (the baseline of UniPruneBench).

    The choice is that of the image and of the seed set by `torch.manual_seed`; see `content_random.draw`.
    """
    scores = draw(row_content(encoded.features), encoded.tokens)
    return duet(replace(encoded, scores=scores), dominant, contextual, cluster_width)
