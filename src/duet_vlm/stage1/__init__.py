"""Stage 1, V2V: which visual tokens are dominant, and how the rest are merged into contextual ones.

One method a file, each a function `(encoded, dominant, contextual, cluster_width) -> Merge` that retains
`dominant + contextual` tokens of every image. docs/method.md, stage 1.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..config.budget import stage1_counts
from ..config.settings import Settings
from .common import Encoded, Merge, Method
from .divprune import divprune
from .duet import duet
from .holov import holov
from .options import discards, diversified, with_rest
from .pool import pool
from .prumerge import prumerge
from .random import random
from .uniform import uniform
from .visionzip import visionzip

METHODS: dict[str, Method] = {
    "duet": duet,
    "visionzip": visionzip,
    "random": random,
    "uniform": uniform,
    "pool": pool,
    "prumerge": prumerge,
    "divprune": divprune,
    "holov": holov,
}


def merge(config: Settings, encoded: Encoded, reserved: int = 0, dynamic: bool = False) -> Merge:
    """What the config makes of these images: counts, method and options.

    Args:
        config: its `dominant`, `contextual`, `cluster_width`, `merging`, `combine`, `diverse` and `rest`.
        encoded: B images of equal size.
        reserved: how many of the dominant tokens are no patches (CLS, where it enters the sequence).
        dynamic: whether images may be too small for the counts, which are then lowered.
    """
    dominant, contextual = stage1_counts(config, encoded.tokens, dynamic)
    method, width = METHODS[config.merging], config.cluster_width
    dominant -= reserved
    if config.diverse:
        encoded = diversified(encoded, dominant)
    merged = method(encoded, dominant, contextual, width)
    if config.rest and contextual:
        fewer = method(encoded, dominant, contextual - 1, width)
        merged = with_rest(fewer) if discards(fewer) else merged
    if config.combine == "mean":
        merged = replace(merged, averaged=torch.ones_like(merged.anchors, dtype=torch.bool))
    return merged


__all__ = [
    "METHODS",
    "Encoded",
    "Merge",
    "Method",
    "divprune",
    "duet",
    "holov",
    "merge",
    "pool",
    "prumerge",
    "random",
    "uniform",
    "visionzip",
]
