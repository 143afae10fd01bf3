"""The loops of a greedy selection as Triton kernels: one program an image, its whole loop inside.

What the loops of `greedy_loops` compute, in float32, from a map of cosines. However many tokens are chosen, as many
operations are started.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .greedy_loops import LAST, LITTLE, SPANNED
from .greedy_rows import Rows
from .greedy_rules import Rule, Worth

_TILE = 16384  # numbers of the map that a program looks at together
_LITTLE, _SPANNED = tl.constexpr(LITTLE), tl.constexpr(SPANNED)


def by_kernel(rule: Rule, rows: Rows, broken: Tensor, count: int) -> Tensor:
    """Choose `count` tokens of (B, N), as `together`: (B, count) long. The rows have their map."""
    assert rows.map is not None
    cosines = rows.map.float().contiguous()
    batch, tokens, _ = cosines.shape
    closed = torch.zeros_like(cosines[:, 0]).masked_fill(broken, LAST)
    out = torch.empty(batch, count, dtype=torch.long, device=cosines.device)
    block = triton.next_power_of_2(tokens)
    sizes = {"BLOCK": block, "TILE": max(2, min(32, _TILE // block)), "num_warps": 4 if block <= 512 else 8}

    def plain(value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value.float().contiguous()
        return torch.full_like(closed, 0.0 if value is None else value)

    with torch.cuda.device_of(cosines):  # where Triton starts its kernels
        if isinstance(rule, Worth):
            near = torch.full_like(closed, rule.floor)
            gain = closed if rule.cover is None else (cosines - rule.floor).clamp_(min=0).sum(1)
            _worth[(batch,)](
                cosines, plain(rule.base), plain(rule.distance), plain(rule.cover), plain(rule.first),
                gain, closed, near, out, tokens, count,
                BASE=rule.base is not None, DISTANCE=rule.distance is not None, COVER=rule.cover is not None,
                FIRST=rule.first is not None, AVERAGED=rule.averaged, **sizes,
            )  # fmt: skip
        else:
            factor = cosines.new_empty(batch, count, tokens)
            _determinant[(batch,)](cosines, plain(rule.quality), closed, factor, out, tokens, count, **sizes)
    return out


@triton.jit
def _over_mean(x, left, least: tl.constexpr):
    return x / tl.maximum(tl.sum(x * left, 0) / tl.sum(left, 0), least)


@triton.jit
def _worth(
    cosines, base, distance, cover, first, gains, closed, nears, out,
    tokens, count,
    BASE: tl.constexpr, DISTANCE: tl.constexpr, COVER: tl.constexpr, FIRST: tl.constexpr, AVERAGED: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    here = tl.arange(0, BLOCK)
    inside = here < tokens
    own = image * tokens + here
    cosines += image * tokens * tokens
    shut = tl.load(closed + own, mask=inside, other=float("-inf"))
    near = tl.load(nears + own, mask=inside, other=0.0)
    gain = tl.load(gains + own, mask=inside, other=0.0)
    left = tl.where(inside, 1.0, 0.0)
    for step in range(count):
        worth = tl.zeros([BLOCK], tl.float32)
        if BASE:
            x = tl.load(base + own, mask=inside, other=0.0)
            worth += _over_mean(x, left, 1e-12) if AVERAGED else x
        if DISTANCE:
            x = 1 - near
            weight = tl.load(distance + own, mask=inside, other=0.0)
            worth += weight * (_over_mean(x, left, _LITTLE) if AVERAGED else x)
        if COVER:
            weight = tl.load(cover + own, mask=inside, other=0.0)
            worth += weight * (_over_mean(gain, left, _LITTLE) if AVERAGED else gain)
        if FIRST:
            worth = tl.where(step == 0, tl.load(first + own, mask=inside, other=0.0), worth)
        place = tl.argmax(worth + shut, 0)
        tl.store(out + image * count + step, place.to(tl.int64))
        shut = tl.where(here == place, float("-inf"), shut)
        left = tl.where(here == place, 0.0, left)
        row = tl.load(cosines + place * tokens + here, mask=inside, other=-1.0)
        if COVER:
            for start in range(0, tokens, TILE):
                part = start + tl.arange(0, TILE)
                there = part < tokens
                before = tl.load(nears + image * tokens + part, mask=there, other=0.0)
                after = tl.load(cosines + place * tokens + part, mask=there, other=-1.0)
                if tl.max(after - before, 0) > 0:  # only what the token is the nearest to counts for less now
                    tile = tl.load(
                        cosines + part[:, None] * tokens + here[None, :],
                        mask=there[:, None] & inside[None, :], other=-1.0,
                    )  # fmt: skip
                    less = tl.minimum(tile, after[:, None]) - before[:, None]
                    gain -= tl.sum(tl.maximum(less, 0.0), 0)
            tl.debug_barrier()  # every thread has read what stands there before it changes
        near = tl.maximum(near, row)
        if COVER:
            tl.store(nears + own, near, mask=inside)
            tl.debug_barrier()


@triton.jit
def _determinant(
    cosines, quality, closed, factor, out, tokens, count,
    BLOCK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    here = tl.arange(0, BLOCK)
    inside = here < tokens
    own = image * tokens + here
    cosines += image * tokens * tokens
    factor += image * count * tokens
    shut = tl.load(closed + own, mask=inside, other=float("-inf"))
    q = tl.load(quality + own, mask=inside, other=0.0)
    left = q * q
    for step in range(count):
        place = tl.argmax(tl.maximum(left, _SPANNED * q) + shut, 0)
        tl.store(out + image * count + step, place.to(tl.int64))
        shut = tl.where(here == place, float("-inf"), shut)
        square = tl.sum(tl.where(here == place, left, 0.0), 0)
        length = tl.sum(tl.where(here == place, q, 0.0), 0)
        row = length * q * tl.load(cosines + place * tokens + here, mask=inside, other=0.0)
        for start in range(0, step, TILE):
            part = start + tl.arange(0, TILE)
            there = part < step
            across = tl.load(factor + part * tokens + place, mask=there, other=0.0)
            tile = tl.load(
                factor + part[:, None] * tokens + here[None, :], mask=there[:, None] & inside[None, :], other=0.0
            )
            row -= tl.sum(across[:, None] * tile, 0)
        row = tl.where(square > _SPANNED * length, row / tl.sqrt(tl.maximum(square, 1e-30)), 0.0)
        tl.store(factor + step * tokens + here, row, mask=inside)
        tl.debug_barrier()  # other threads read it in the next step
        left -= row * row
