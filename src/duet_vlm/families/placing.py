"""What stage 1 retained, at the places of an image, for encoders that hand over as many tokens as ever."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.settings import Settings
from ..stage1 import Merge


def placed(tokens: Tensor, places: Tensor, sizes: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Put (B, K, D) tokens and their (B, K) sizes at `places` (B, K): (B, length, D) and (B, length), 0 elsewhere."""
    where = places[..., None].expand_as(tokens)
    full = tokens.new_zeros(len(tokens), length, tokens.shape[2]).scatter(1, where, tokens)
    counts = torch.zeros(len(tokens), length, dtype=torch.float32, device=tokens.device)
    return full, counts.scatter(1, places, sizes.float())


def merged_in_place(config: Settings, merge: Merge, features: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, D) features: every retained token at its own place, an anchor's place holding its contextual token.

    docs/method.md, 1.7, encoders without CLS.

    Returns:
        (B, N, D), zeros where a token was removed; (B, N) float32 sizes.
    """
    return placed(merge.retained(features), merge.places, merge.sizes, features.shape[1])
