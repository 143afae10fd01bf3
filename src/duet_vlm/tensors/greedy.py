"""Tokens chosen one after another, each by what the chosen ones leave: one loop for every selector of that kind.

Farthest-first, maximal marginal relevance, coverage and determinants all choose the best token, see what that changes
for the others, and choose again. They differ in what a token is worth: `Worth` or `Determinant` of `greedy_rules`.

On a CPU the images are done one by one in numpy, whose small operations start in a fraction of the time of torch's, and
a gain is corrected for the tokens that came nearer instead of being summed again. On a CUDA device with Triton a kernel
runs the whole loop; other accelerators do all images at once, a step at a time, and read nothing on the host.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .greedy_loops import LIMIT, alone, together
from .greedy_rows import Rows
from .greedy_rules import Rule, Worth
from .streamed import block_size, wide

Loop = Callable[[Rule, Rows, Tensor, int], Tensor]


@torch.compiler.disable  # a loop of hundreds of steps is no graph
@torch.no_grad()
def greedy(rule: Rule, direction: Tensor, count: int) -> Tensor:
    """Choose tokens of every image one after another, by a rule.

    A map of all cosines is held only where it is no larger than `direction` or a block (`streamed.block_size`), and of
    as many images at a time as fit a block. Without one, a coverage on an accelerator is worked out on the host.

    Args:
        rule: what a token is worth.
        direction: (B, N, D) unit vectors in float32 or float64; zeros are similar to nothing.
        count: how many are chosen of each image, at most N.

    Returns:
        (B, count) long, places in the order of choice. Ties take the earlier place. A token that has something that is
        no number is similar to nothing, and comes last.
    """
    batch, tokens, width = direction.shape
    if not batch or not count:
        return torch.zeros(batch, count, dtype=torch.long, device=direction.device)
    room, on_cpu = block_size(direction.device), direction.device.type == "cpu"
    broken = ~direction.sum(-1).isfinite()
    if not on_cpu or bool(broken.any()):
        direction = direction.masked_fill(broken[..., None], 0)
    mapped = tokens**2 <= max(room, tokens * width)
    images = max(1, room // tokens**2) if mapped else batch
    covers = isinstance(rule, Worth) and rule.cover is not None
    choose = alone if on_cpu or (covers and not mapped) else _accelerated(direction, mapped)
    chosen = []
    for start in range(0, batch, images):
        part = slice(start, start + images)
        rows = Rows(direction[part], mapped, room)
        chosen.append(choose(_part(rule, part, rows), rows, broken[part], count))
    return torch.cat(chosen)


def _accelerated(direction: Tensor, mapped: bool) -> Loop:
    """What runs the loop on an accelerator: the kernel needs a map, and Triton."""
    single = direction.dtype == torch.float32
    if mapped and single and direction.is_cuda and importlib.util.find_spec("triton") is not None:
        from .greedy_kernel import by_kernel

        return by_kernel
    return together


def _part(rule: Rule, part: slice, rows: Rows) -> Rule:
    """The rule of some of the images, with finite numbers."""
    numbers: dict[str, Any] = {
        name: wide(value[part]).nan_to_num(nan=-LIMIT).clamp(-LIMIT, LIMIT)
        for name, value in vars(rule).items()
        if isinstance(value, Tensor)
    }
    if isinstance(rule, Worth):
        if rule.lonely:
            numbers["first"] = 1 - rows.nearest()
        if rule.averaged and "base" in numbers:  # whatever its unit, its mean is a number that can be divided by
            base = numbers["base"]
            numbers["base"] = base / base.abs().amax(1, keepdim=True).clamp(min=torch.finfo(base.dtype).tiny)
    else:
        numbers["quality"] = numbers["quality"].clamp(0, 1)
    return replace(rule, **numbers)
