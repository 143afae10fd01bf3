"""The baseline every method must beat."""

from __future__ import annotations

from dataclasses import replace

import torch

from .common import Encoded, Merge
from .duet import duet


def random(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """`duet` with random scores, from torch's global generator."""
    return duet(replace(encoded, scores=torch.rand_like(encoded.scores)), dominant, contextual, cluster_width)
