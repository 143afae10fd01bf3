"""Index arithmetic on token sequences.

`kept` (B, n) long holds indices into the full sequence, ascending within a row, -1 for a hole where a row kept fewer
tokens than the longest one. Knows no model and no score.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pack(keep: Tensor, holes_right: bool = False) -> tuple[Tensor, bool]:
    """Turn flags into indices. This reads the rows' counts on the host, the one synchronisation of a drop.

    Args:
        keep: (B, S) bool, the tokens to keep.
        holes_right: whether holes stand behind a row's tokens, as padding on the right does, instead of before them.

    Returns:
        `kept` (B, n) long, where n is the count of the fullest row, and whether it has holes.
    """
    counts = keep.sum(1).tolist()
    n = max(counts)
    order = torch.argsort((~keep if holes_right else keep).to(torch.uint8), dim=1, stable=True)
    order = order[:, :n] if holes_right else order[:, keep.shape[1] - n :]
    return order.masked_fill(~keep.gather(1, order), -1), min(counts) < n


def take(x: Tensor, kept: Tensor, dim: int = 1) -> Tensor:
    """Gather from `x` (B or 1, ..., S, ...) along `dim` what `kept` (B, n) names; a hole gives what is at index 0."""
    dim = dim % x.ndim
    if kept.shape[0] == 1 and x.shape[0] == 1:
        return x.index_select(dim, kept[0].clamp(min=0))
    x = x.expand(kept.shape[0], *x.shape[1:])
    shape = [1] * x.ndim
    shape[0], shape[dim] = kept.shape
    index = kept.clamp(min=0).view(shape).expand(*x.shape[:dim], kept.shape[1], *x.shape[dim + 1 :])
    return x.gather(dim, index)


def select(kept: Tensor, index: Tensor) -> Tensor:
    """Index into `kept` (B, n): `index` (B, m) says which columns to take, and -1 in it stays -1.

    Returns:
        (B, m) places in the full sequence.
    """
    return take(kept, index).masked_fill(index < 0, -1)


def slots(kept: Tensor, length: int) -> Tensor:
    """The inverse of `kept` (B, n): (B, length) long, the column in which each token stands, -1 if it is not kept."""
    slot = torch.full((kept.shape[0], length + 1), -1, device=kept.device)
    slot.scatter_(
        1, kept.masked_fill(kept < 0, length), torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    )
    return slot[:, :length]


def fill_back(x: Tensor, kept: Tensor, length: int) -> Tensor:
    """Give `x` (B, n, D) of the kept tokens the full length: (B, length, D).

    A dropped token repeats the last kept one before it. So the token after a dropped one is predicted from its last
    kept predecessor, and labels, losses and evaluation harnesses see the shapes they know.
    """
    return take(x, slots(kept, length).cummax(1).values)


def take_mask(mask: Tensor | None, rows: Tensor, columns: Tensor, holes: bool, flash: bool) -> Tensor | None:
    """Restrict a stock attention mask over the full sequence to the queries `rows` and the keys `columns`.

    Args:
        mask: None (plain causal), (B or 1, 1, q, kv) bool or additive float, or (B, kv) for flash attention.
        rows: (B, n) the rows of the mask, one for each query; without a mask, the queries' places. -1 is a hole.
        columns: (B, m) the columns of the mask, one for each key; without a mask, the keys' places. -1 is a hole.
        holes: whether rows or columns have any.
        flash: whether the attention wants the two-dimensional form.

    Returns:
        (B, 1, n, m), bool or additive as the mask is; (B, m) bool for flash attention; None where plain causal
        attention is the same.
    """
    if mask is None and not holes:
        return None
    if flash:
        return columns >= 0 if mask is None else take(mask, columns).bool() & (columns >= 0)
    if mask is None:
        mask = columns[:, None, None] <= rows[:, None, :, None]
    else:
        mask = take(take(mask, rows, 2), columns, 3)
    if not holes:
        return mask
    no, yes = (False, True) if mask.dtype == torch.bool else (torch.finfo(mask.dtype).min, 0.0)
    # a hole must attend to something, or its softmax is NaN; what it computes is never read
    return mask.masked_fill((columns < 0)[:, None, None], no).masked_fill((rows < 0)[:, None, :, None], yes)


def number_spans(visual: Tensor, sizes: list[int]) -> Tensor:
    """Number the images and videos of a batch 1, 2, ... in reading order, rows one after the other.

    Args:
        visual: (B, S) bool, the visual tokens.
        sizes: how many visual tokens each image or video has.

    Returns:
        (B, S) long, the number of each visual token's image or video, 0 at text.
    """
    numbers = torch.arange(1, len(sizes) + 1, device=visual.device)
    sizes_there = torch.tensor(sizes, device=visual.device)
    spread = numbers.repeat_interleave(sizes_there, output_size=sum(sizes))
    return torch.zeros_like(visual, dtype=torch.long).masked_scatter(visual, spread)


def number_runs(visual: Tensor) -> Tensor:
    """Number the unbroken runs of visual tokens, as `number_spans` numbers images: (B, S) bool to (B, S) long."""
    starts = visual & ~visual.roll(1, dims=1)
    starts[:, 0] = visual[:, 0]
    return starts.flatten().cumsum(0).view_as(visual) * visual


def spread(x: Tensor, mask: Tensor) -> Tensor:
    """Put the vectors `x` (n, D) at the n True places of `mask` (B, S), in reading order: (B, S, D), 0 elsewhere."""
    return x.new_zeros(*mask.shape, x.shape[-1]).masked_scatter(mask[..., None], x)
