"""Every rule of a greedy selection, and images to choose in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from duet_vlm.tensors.greedy_rules import Determinant, Rule, Worth, balanced

RULES: dict[str, Callable[[Tensor], Rule]] = {
    "farthest first": lambda a: Worth(distance=1.0, lonely=True),
    "weighted distance": lambda a: Worth(distance=a, floor=0.0),
    "coverage": lambda a: Worth(cover=a, floor=0.0),
    "marginal relevance": lambda a: Worth(base=0.5 * a, distance=0.5, first=a),
    "balanced": balanced,
    "determinant": lambda a: Determinant(quality=a),
}


def image(seed: int, batch: int, tokens: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, tokens, width, generator=generator)
    return normalize(x, dim=-1), 0.05 + 0.95 * torch.rand(batch, tokens, generator=generator)
