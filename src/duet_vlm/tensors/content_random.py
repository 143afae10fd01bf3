"""Random numbers that belong to what they are for: the same for an image alone, in a batch, or after a restart."""

from __future__ import annotations

import torch
from torch import Tensor

# splitmix64 (Steele, Lea and Flood, OOPSLA 2014); products wrap around, as its arithmetic wants
_STEP, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def uniform(content: Tensor, n: int) -> Tensor:
    """(B, n) float32 in [0, 1), drawn from the seed of torch's global generator and from a row's own content.

    They depend on `torch.manual_seed` and on the row alone: neither on the rest of the batch, nor on the device, nor on
    what was drawn before. The generator itself is left as it is.

    Args:
        content: (B, k) long, what tells a row from others.
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


def content(x: Tensor) -> Tensor:
    """(B, n, D) -> (B, up to 8) long: which token is the largest in the first channels, whatever rounding does."""
    return x[..., :8].argmax(1)
