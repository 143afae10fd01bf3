"""A token that was merged from s gets the attention of all s: log s is added to its attention logits.

This is the proportional attention of ToMe (arXiv 2210.09461, section 3, equation 1): softmax(Q K^T * scaling + log s).
A token that is the mean of s equal ones then gets what the s would have got.

How many each token stands for (`Merge.sizes`) stands beside the encoder's features (`families.encoding.Outcome`), in
the same order: tiles are packed and padding is cut off in both alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import DuetError
from ..host import attention_kind
from ..tensors.tokens import spread, take

IMPLEMENTATIONS = ("sdpa", "eager")  # that add a mask to the logits


def check_adds_mask(decoder: Any) -> None:
    """Refuse attention that takes no additive mask.

    Raises:
        ValueError: an implementation other than sdpa and eager.
    """
    kind = attention_kind(decoder)
    if kind not in IMPLEMENTATIONS:
        raise DuetError(
            f"proportional needs attention that adds a mask, and the language model uses {kind!r}: "
            "set attn_implementation to 'sdpa' or 'eager', or leave proportional off."
        )


def log_sizes(sizes: Tensor, there: Tensor) -> Tensor:
    """Put the log of sizes (tokens,) at the visual tokens that `there` (B, S) marks: (B, S) float32, 0 at text."""
    return spread(sizes.detach().to(there.device, torch.float32)[:, None], there)[..., 0].clamp(min=1).log()


def append_sizes(before: Tensor | None, length: int, log_s: Tensor | None) -> Tensor | None:
    """Put the log sizes of a call behind those of the calls before it; a token that has none stands for itself, log 1.

    Args:
        before: (B, up to `length`) of the tokens that the cache has seen, or None.
        length: how many tokens the cache has seen.
        log_s: (B, S) of the tokens of this call, or None.

    Returns:
        (B, length + S), or `before` where this call has no sizes.
    """
    if log_s is None:
        return before
    if not length:
        return log_s
    before = log_s[:, :0] if before is None else before
    return torch.cat([pad(before, (0, length - before.shape[1])), log_s], dim=1)


def add_size_bias(mask: Tensor | None, rows: Tensor, columns: Tensor, log_s: Tensor, dtype: torch.dtype) -> Tensor:
    """Add log s of every key to a mask of `tokens.take_mask`; the result is additive, (B, 1, n, m).

    Args:
        mask: (B, 1, n, m) bool or additive, or None (plain causal, no holes).
        rows: (B, n) places of the queries, where there is no mask.
        columns: (B, m) places of the keys, -1 for holes.
        log_s: (B, L) log sizes of the first L places; behind them is text, which adds nothing.
        dtype: that of the layer's hidden states.
    """
    beyond = (columns < 0) | (columns >= log_s.shape[1])
    bias = take(log_s, columns.clamp(max=log_s.shape[1] - 1)).masked_fill(beyond, 0).to(dtype)[:, None, None]
    if mask is None:
        mask = columns[:, None, None] <= rows[:, None, :, None]
    return torch.where(mask, bias, torch.finfo(dtype).min) if mask.dtype == torch.bool else mask + bias
