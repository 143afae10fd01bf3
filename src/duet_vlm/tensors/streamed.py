"""Softmax attention summed over queries, in float32 and in blocks: never a map of all heads, queries and keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Softmax:
    """How a layer turns products of queries and keys into attention: what its attention function is told.

    Attributes:
        scaling: factor on the products.
        softcap: c of c * tanh(logits / c), as in Gemma 2; None for no cap.
        window: how many tokens back a query sees, itself included; None for all of them.
        sinks: (H,) one more logit for each head, which takes its share and is no token, as in GPT-OSS; None for none.
    """

    scaling: float
    softcap: float | None = None
    window: int | None = None
    sinks: Tensor | None = None


@dataclass(frozen=True)
class Places:
    """Where queries and keys stand in the full sequence; a query sees what is not behind it.

    Attributes:
        queries: (B, q) long, places of the queries; -1 where a row has fewer, and such a query counts for nothing.
        keys: (B, m) long, places of the keys; -1 for a hole or padding, which no query sees.
    """

    queries: Tensor
    keys: Tensor

    def visible(self, images: slice, block: slice, columns: slice, window: int | None) -> Tensor:
        """Tell which keys the queries of one block see: (images, queries, columns) bool."""
        queries, keys = self.queries[images, block, None], self.keys[images, None, columns]
        visible = (keys <= queries) & (keys >= 0)
        return visible if window is None else visible & (keys > queries - window)

    def spans(self, block_size: int, window: int | None) -> list[tuple[int, int]]:
        """Find, for each block of queries, how many columns all of it sees, and the column behind which it sees none.

        Read on the host, all at once.
        """
        parts, holes = self.queries.split(block_size, dim=1), self.keys < 0
        tops, lows = (torch.stack([f(part) for part in parts]) for f in (torch.amax, torch.amin))
        lowest_behind = self.keys.masked_fill(holes, torch.iinfo(torch.long).max).amin(0)
        lowest_behind = lowest_behind.flip(0).cummin(0).values.flip(0)  # of this column and all behind it
        highest_before = self.keys.amax(0).cummax(0).values  # of this column and all before it
        clear = torch.searchsorted(highest_before, lows, right=True).minimum((holes.any(0).cumsum(0) == 0).sum())
        if window is not None:
            clear = clear.masked_fill(tops - lowest_behind[0] >= window, 0)
        ends = torch.searchsorted(lowest_behind, tops, right=True).clamp(min=1)
        return [(first, last) for first, last in torch.stack([clear.minimum(ends), ends], dim=1).tolist()]


def exact(device: torch.device) -> Any:
    """A context in which nothing computes in less than the precision of what it is given, autocast or not."""
    kind = device.type if torch.amp.is_autocast_available(device.type) else "cpu"
    return torch.autocast(kind, enabled=False)


def wide(x: Tensor) -> Tensor:
    """Return x in float32, or as it is where that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def block_size(device: torch.device) -> int:
    """How many numbers to hold at a time: 2 MB in float32, which stay in a CPU's cache, and 256 MB elsewhere.

    An accelerator needs the larger blocks, for there each one costs the start of its kernels; next to what a prefill
    of that length holds, they are little.
    """
    return 2**19 if device.type == "cpu" else 2**26


def column_sums(
    query: Tensor,
    key: Tensor,
    softmax: Softmax,
    visible: Tensor | Places | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Compute the softmax attention that each key receives, averaged over heads and summed over queries: (B, m).

    Computed in float32 (or wider, where the inputs are), whatever autocast and the default dtype say. Holds a few times
    `block_size` numbers, besides one group of heads of the inputs in that precision.

    Args:
        query: (B, H, q, d).
        key: (B, Hkv, m, d), each shared by H / Hkv query heads.
        softmax: how the layer attends.
        visible: (B or 1, 1, q, m) bool or additive, or `Places`; None for everything.
        bias: (B, m) added to the logits of every key, or None.
    """
    batch, heads = query.shape[:2]
    dtype = torch.promote_types(query.dtype, torch.float32)
    sums = torch.zeros(batch, key.shape[2], dtype=dtype, device=query.device)
    with exact(query.device):
        for images, across, block, (clear, end) in _blocks(query, key, softmax, visible):
            share = heads // key.shape[1]
            grouped = slice(across.start * share, across.stop * share)
            asking = query[images, grouped, block].to(dtype).unflatten(1, (-1, share)) * softmax.scaling
            # (b, groups, share, r, end)
            logits = asking.flatten(2, 3) @ key[images, across, :end].to(dtype).transpose(-1, -2)
            logits = logits.unflatten(2, asking.shape[2:4])
            if softmax.softcap is not None:
                logits.div_(softmax.softcap).tanh_().mul_(softmax.softcap)
            if bias is not None:
                logits += bias[images, None, None, None, :end]
            if isinstance(visible, Places):
                there = visible.visible(images, block, slice(clear, end), softmax.window)
                logits[..., clear:].masked_fill_(~there[:, None, None], -torch.inf)
            elif visible is not None:
                there = visible if len(visible) == 1 else visible[images]
                there = there[:, :, None, block]
                logits = logits.masked_fill_(~there, -torch.inf) if there.dtype == torch.bool else logits + there
            if softmax.sinks is not None:
                sinks = softmax.sinks.to(logits)[grouped].view(1, -1, share, 1, 1)
                logits = torch.cat([logits, sinks.expand(*logits.shape[:-1], 1)], dim=-1)
            shares = logits.softmax(-1)[..., :end]
            if isinstance(visible, Places) and not clear:  # a hole among the queries sees nothing
                shares.masked_fill_((visible.queries[images, block] < 0)[:, None, None, :, None], 0)
            sums[images, :end] += shares.sum((1, 2, 3))
            del logits, shares  # or the next block's would be made beside them
    return sums / heads


def _blocks(
    query: Tensor, key: Tensor, softmax: Softmax, visible: Any
) -> Iterator[tuple[slice, slice, slice, tuple[int, int]]]:
    """Cut the work into blocks (images, key heads, queries, columns as in `Places.spans`) that fit `block_size`."""
    (batch, heads, queries, _), (groups, columns) = query.shape, key.shape[1:3]
    room, share = block_size(query.device), heads // groups
    images = min(batch, max(1, room // max(1, heads * queries * columns)))
    across = min(groups, max(1, room // max(1, share * queries * columns)))
    queries_per_block = max(1, min(queries, room // max(1, share * columns)))
    starts = range(0, queries, queries_per_block)
    # one block of queries needs no look at where they stand
    causal = isinstance(visible, Places) and len(starts) > 1
    spans = visible.spans(queries_per_block, softmax.window) if causal else [(0, columns)] * len(starts)
    for image in range(0, batch, images):
        for group in range(0, groups, across):
            for start, span in zip(starts, spans, strict=True):
                yield (
                    slice(image, image + images),
                    slice(group, group + across),
                    slice(start, start + queries_per_block),
                    span,
                )
