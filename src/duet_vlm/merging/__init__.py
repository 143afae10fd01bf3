"""Stage 1, V2V: which visual tokens are dominant, and how the rest are merged into contextual ones.

One method a file, each a function `(encoded, dominant, contextual, cluster_width) -> Merge`. METHOD: "Stage 1".
"""

from __future__ import annotations

from ..budget import stage1_counts
from ..config import DuetConfig
from .common import Encoded, Merge, Method
from .duet import duet
from .random import random
from .visionzip import visionzip

METHODS: dict[str, Method] = {"duet": duet, "visionzip": visionzip, "random": random}


def merge(config: DuetConfig, encoded: Encoded, reserved: int = 0, dynamic: bool = False) -> Merge:
    """What the config makes of these images: counts, method and options.

    Args:
        config: its `dominant`, `contextual`, `cluster_width` and `merging`.
        encoded: B images of equal size.
        reserved: how many of the dominant tokens are no patches (CLS, where it enters the sequence).
        dynamic: whether images may be too small for the counts, which are then lowered.
    """
    dominant, contextual = stage1_counts(config, encoded.tokens, dynamic)
    return METHODS[config.merging](encoded, dominant - reserved, contextual, config.cluster_width)


__all__ = ["METHODS", "Encoded", "Merge", "Method", "duet", "merge", "random", "visionzip"]
