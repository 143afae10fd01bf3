"""The loops of a greedy selection: an image in numpy on the host, or all images in torch where they are.

A rule's numbers are finite here, no larger than `LIMIT`. What a token is worth is written once, for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .greedy_rows import HostRows, Rows
from .greedy_rules import Rule, Worth
from .streamed import exact

Array = Any  # (N,) of numpy for one image, or a tensor (B, N)

LIMIT = 1e25
LAST = -1e37  # added to the worth of a token that has something that is no number: below all others
LITTLE = 1e-3  # a mean distance or gain below which there is nothing left to find
MORE = 1e-4  # of a share that is covered: by so much the host goes on, as another sum decides
SPANNED = 1e-5  # of a token's quality: what rounding may leave of a token that the chosen ones span


def alone(rule: Rule, rows: Rows, broken: Tensor, count: int) -> Tensor:
    """Choose `count` tokens of (B, N), image by image on the host: (B, count) long."""
    chosen = []
    for image in range(len(broken)):
        closed = np.where(broken[image].cpu().numpy(), np.float32(LAST), np.float32(0))
        numbers = {
            name: value[image].cpu().numpy() if isinstance(value, Tensor) else value
            for name, value in vars(rule).items()
        }
        loop = _worth_alone if isinstance(rule, Worth) else _determinant_alone
        chosen.append(loop(numbers, HostRows(rows, image), closed, count))
    return torch.tensor(chosen, device=broken.device)


def together(rule: Rule, rows: Rows, broken: Tensor, count: int) -> Tensor:
    """Choose `count` tokens of (B, N), all images at once, nothing read on the host: (B, count) long."""
    closed = torch.zeros_like(rows.direction[..., 0]).masked_fill(broken, LAST)
    with exact(closed.device):
        if isinstance(rule, Worth):
            return _worth_together(vars(rule), rows, closed, count)
        return _determinant_together(rule.quality, rows, closed, count)


def _worth(numbers: dict[str, Any], near: Array, gain: Array, mean: Callable[[Array, float], Array]) -> Array:
    """What every token is worth now; `mean` averages over the tokens that are left, to at least a number."""
    base, distance, cover = numbers["base"], numbers["distance"], numbers["cover"]
    terms: tuple[tuple[Array, Array, float], ...] = (
        (None if base is None else 1, base, 1e-12),
        (distance, None if distance is None else 1 - near, LITTLE),
        (cover, gain, LITTLE),
    )
    total: Array = 0
    for weight, found, least in terms:
        if weight is not None:
            total = total + weight * (found / mean(found, least) if numbers["averaged"] else found)
    return total


def _worth_alone(numbers: dict[str, Any], rows: HostRows, closed: NDArray[Any], count: int) -> list[int]:
    tokens, left = len(closed), np.ones_like(closed)
    stop = numbers["stop"]
    near = np.full_like(closed, numbers["floor"])
    gain: Array = None
    if numbers["cover"] is not None:
        gain = np.zeros(tokens)
        for part in rows.parts(np.arange(tokens)):
            gain += np.maximum(rows.at(part) - near[part, None], 0).sum(0)

    def mean(x: Array, least: float) -> Array:
        return max(float(x @ left) / (tokens - len(chosen)), least)

    chosen: list[int] = []
    while True:
        first = None if chosen else numbers["first"]
        values = _worth(numbers, near, gain, mean) if first is None else first
        place = int((values + closed).argmax())
        chosen.append(place)
        if len(chosen) == count:
            return chosen
        closed[place], left[place] = -np.inf, 0
        row = rows.of(place)
        if gain is not None:  # only what the token is the nearest to counts for less now
            nearer = np.flatnonzero(row > near)
            for part in rows.parts(nearer):
                block, before = rows.at(part), near.take(part)[:, None]
                np.minimum(block, row.take(part)[:, None], out=block)
                block -= before
                gain -= np.add.reduce(np.maximum(block, 0, out=block))
        near = np.maximum(near, row)
        if stop is not None and len(chosen) >= stop.least and np.maximum(near, 0).mean() >= stop.share + MORE:
            return chosen


def _determinant_alone(numbers: dict[str, Any], rows: HostRows, closed: NDArray[Any], count: int) -> list[int]:
    quality = numbers["quality"]
    left, factor = quality * quality, np.empty((count, len(closed)), quality.dtype)
    chosen: list[int] = []
    known = 0  # rows of the factor
    while True:
        place = int((np.maximum(left, SPANNED * quality) + closed).argmax())
        chosen.append(place)
        if len(chosen) == count:
            return chosen
        closed[place] = -np.inf
        if left[place] > SPANNED * quality[place]:
            row = quality[place] * quality * rows.of(place) - factor[:known, place] @ factor[:known]
            factor[known] = row / np.sqrt(left[place])
            left = left - factor[known] ** 2
            known += 1


def _worth_together(numbers: dict[str, Any], rows: Rows, closed: Tensor, count: int) -> Tensor:
    near, covers = torch.full_like(closed, numbers["floor"]), numbers["cover"] is not None

    def mean(x: Tensor, least: float) -> Tensor:
        left = closed > -torch.inf
        return (x.masked_fill(~left, 0).sum(1, keepdim=True) / left.sum(1, keepdim=True)).clamp(min=least)

    chosen: list[Tensor] = []
    while True:
        first = None if chosen else numbers["first"]
        if first is None:
            gain = None
            if covers:
                gain = sum((block - near[:, part, None]).clamp_(min=0).sum(1) for part, block in rows.blocks())
            first = _worth(numbers, near, gain, mean)
        place = (first + closed).argmax(1, keepdim=True)
        chosen.append(place)
        if len(chosen) == count:
            return torch.cat(chosen, dim=1)
        closed = closed.scatter(1, place, -torch.inf)
        near = near.maximum(rows.of(place))


def _determinant_together(quality: Tensor, rows: Rows, closed: Tensor, count: int) -> Tensor:
    left, factor = quality * quality, quality.new_zeros(len(closed), count, closed.shape[1])
    chosen: list[Tensor] = []
    while True:
        place = (left.maximum(SPANNED * quality) + closed).argmax(1, keepdim=True)
        chosen.append(place)
        if len(chosen) == count:
            return torch.cat(chosen, dim=1)
        closed = closed.scatter(1, place, -torch.inf)
        known = factor[:, : len(chosen) - 1]
        own = left.gather(1, place)
        before = (known.gather(2, place[..., None].expand(-1, known.shape[1], -1)) * known).sum(1)
        row = quality.gather(1, place) * quality * rows.of(place) - before
        new = own > SPANNED * quality.gather(1, place)
        row = (row / own.clamp(min=torch.finfo(own.dtype).tiny).sqrt()).masked_fill(~new, 0)
        factor[:, len(chosen) - 1] = row
        left = left - row**2
