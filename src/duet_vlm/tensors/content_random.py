"""Random numbers made of what they are for, so that an image gets the same alone, in a batch and after a restart."""

from __future__ import annotations

import torch
from torch import Tensor

# splitmix64 (Steele, Lea and Flood, OOPSLA 2014); products wrap around, as its arithmetic wants
_STEP, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def draw(content: Tensor, n: int) -> Tensor:
    """Draw n numbers for every row, from the seed of torch's global generator and the row's own content.

    They depend on `torch.manual_seed` and on the row alone: neither on the rest of the batch, nor on the device, nor on
    what was drawn before. The generator itself is left as it is.

    Args:
        content: (B, k) long, numbers that tell a row from others.
        n: how many to draw.

    Returns:
        (B, n) float32 in [0, 1).
    """
    seed = torch.initial_seed() & 0x7FFFFFFFFFFFFFFF
    state = _mix(torch.full_like(content[:, :1], seed))
    for column in content.split(1, dim=1):
        state = _mix(state + _STEP + column)
    numbers = _mix(state + _STEP * torch.arange(1, n + 1, device=content.device))
    return _shift(numbers, 40).float() / 2**24


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift(state, 30)) * _FIRST
    state = (state ^ _shift(state, 27)) * _SECOND
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    # the sign bit is a bit like any other
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def row_content(x: Tensor) -> Tensor:
    """Numbers that tell a row of tokens from others, and that rounding hardly ever changes.

    Args:
        x: (B, n, D) the row's tokens.

    Returns:
        (B, min(8, D)) long: for each of the first channels, the token in which it is largest.
    """
    return x[..., :8].argmax(1)
