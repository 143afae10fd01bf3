"""Index arithmetic on token sequences.

`kept` (B, n) long holds indices into the full sequence, ascending within a row, -1 for a hole where a row kept fewer
tokens than the longest one. Knows no model and no score.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pack(keep: Tensor, holes_right: bool = False) -> tuple[Tensor, bool]:
    """(B, S) bool -> kept (B, n), where n is the count of the fullest row, and whether it has holes.

    Reads the rows' counts on the host: the one synchronisation of a drop.
    """
    counts = keep.sum(1).tolist()
    n = max(counts)
    order = torch.argsort((~keep if holes_right else keep).to(torch.uint8), dim=1, stable=True)
    order = order[:, :n] if holes_right else order[:, keep.shape[1] - n :]
    return order.masked_fill(~keep.gather(1, order), -1), min(counts) < n


def take(x: Tensor, kept: Tensor, dim: int = 1) -> Tensor:
    """Gather `x` (B or 1, ..., S, ...) along `dim` by kept (B, n); a hole takes index 0."""
    dim = dim % x.ndim
    if kept.shape[0] == 1 and x.shape[0] == 1:
        return x.index_select(dim, kept[0].clamp(min=0))
    x = x.expand(kept.shape[0], *x.shape[1:])
    shape = [1] * x.ndim
    shape[0], shape[dim] = kept.shape
    index = kept.clamp(min=0).view(shape).expand(*x.shape[:dim], kept.shape[1], *x.shape[dim + 1 :])
    return x.gather(dim, index)


def select(kept: Tensor, index: Tensor) -> Tensor:
    """Compose: the tokens of the full sequence that `index` (B, m), itself with -1 for holes, picks out of `kept`."""
    return take(kept, index).masked_fill(index < 0, -1)


def slots(kept: Tensor, length: int) -> Tensor:
    """(B, length): where each token of the full sequence stands in `kept`, -1 where it does not."""
    slot = torch.full((kept.shape[0], length + 1), -1, device=kept.device)
    slot.scatter_(
        1, kept.masked_fill(kept < 0, length), torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    )
    return slot[:, :length]


def fill_back(x: Tensor, kept: Tensor, length: int) -> Tensor:
    """(B, n, D) -> (B, length, D): a dropped token repeats the last kept one before it.

    So the token after a dropped one is predicted from its last kept predecessor, and labels, losses and harnesses
    see the shapes they know.
    """
    return take(x, slots(kept, length).cummax(1).values)


def take_mask(mask: Tensor | None, rows: Tensor, columns: Tensor, holes: bool, flash: bool) -> Tensor | None:
    """A stock attention mask over the full sequence, restricted to queries `rows` and keys `columns`.

    Args:
        mask: None (plain causal), (B or 1, 1, q, kv) bool or additive float, or (B, kv) for flash attention.
        rows: (B, n) queries as rows of the mask; without a mask, as places in the full sequence. -1 for holes.
        columns: (B, m) keys as columns of the mask, -1 for holes.
        holes: whether rows or columns have any.
        flash: whether the attention wants the two-dimensional form.
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
    """(B, S) long: 1, 2, ... at the visual tokens of each image or video in reading order, 0 at text.

    Args:
        visual: (B, S) bool, the visual tokens.
        sizes: how many visual tokens each image or video has, rows one after the other.
    """
    numbers = torch.arange(1, len(sizes) + 1, device=visual.device)
    sizes_there = torch.tensor(sizes, device=visual.device)
    spread = numbers.repeat_interleave(sizes_there, output_size=sum(sizes))
    return torch.zeros_like(visual, dtype=torch.long).masked_scatter(visual, spread)


def number_runs(visual: Tensor) -> Tensor:
    """(B, S) long: 1, 2, ... at every run of visual tokens in reading order, rows one after the other; 0 at text."""
    starts = visual & ~visual.roll(1, dims=1)
    starts[:, 0] = visual[:, 0]
    return starts.flatten().cumsum(0).view_as(visual) * visual


def spread(x: Tensor, mask: Tensor) -> Tensor:
    """(n, D) vectors at the n places of mask (B, S), in reading order -> (B, S, D), zeros elsewhere."""
    return x.new_zeros(*mask.shape, x.shape[-1]).masked_scatter(mask[..., None], x)
