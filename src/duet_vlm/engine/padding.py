"""Which tokens of a call are padding, and the calls whose rows are not one sequence each: these are refused.

What is dropped and what asks is decided a row at a time, so a row must be one sample, with padding at its ends only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DuetError
from ..host import PACKED


@dataclass
class Padding:
    """What a call says of padding.

    Attributes:
        valid: (B, S) bool, False at padding.
        past: (B, P) bool, the same of what the cache has seen; None where all of it is real.
    """

    valid: Tensor
    past: Tensor | None = None


def read_padding(ids: Tensor, kwargs: dict[str, Any], past: int, together: bool = False) -> Padding:
    """Read which tokens of a call are padding from its attention mask, of two or four dimensions.

    Args:
        ids: (B, S).
        kwargs: of the call.
        past: P, how many tokens the cache has seen.
        together: whether a row's positions may go back, because all its questions ask about the same images.

    Raises:
        DuetError: a mask that is no padding, or several samples in one row.
    """
    mask, length = kwargs.get("attention_mask"), ids.shape[1]
    for name in PACKED:
        if kwargs.get(name) is not None:
            raise DuetError(f"{name} came with a call, so rows hold several samples: {_ONE}")
    if mask is None:
        padding = Padding(torch.ones_like(ids, dtype=torch.bool))
    elif isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] >= length:
        _check_flags(mask)
        padding = Padding(mask[:, -length:].bool(), mask[:, :-length].bool() if past else None)
    elif isinstance(mask, Tensor) and mask.ndim == 4 and mask.shape[-2:] == (length, past + length):
        padding = _of_causal(mask, len(ids), past)
    else:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise DuetError(
            f"an attention_mask of {shape} came with {length} tokens behind {past}: pass the two-dimensional mask of "
            "the tokenizer, or one of (B, 1, S, P + S)."
        )
    padding = Padding(padding.valid.to(ids.device), None if padding.past is None else padding.past.to(ids.device))
    if not together:
        _check_positions(kwargs.get("position_ids"), padding.valid)
    return padding


_ONE = "visual tokens are chosen for each row, so give every sample a row of its own (no packing)."


def _check_flags(mask: Tensor) -> None:
    if mask.dtype != torch.bool and bool((mask > 1).any()):
        raise DuetError(f"the attention_mask numbers samples up to {int(mask.max())}: {_ONE}")


def _check_positions(positions: Any, valid: Tensor) -> None:
    """Refuse positions that go back within a row, because there another sample begins."""
    if not isinstance(positions, Tensor) or positions.shape[-1] != valid.shape[1]:
        return
    axis = (positions[0] if positions.ndim == 3 else positions).to(valid.device)
    back = (axis[:, 1:] < axis[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    if bool(back.any()):
        raise DuetError(f"position_ids go back within a row, so rows hold several samples: {_ONE}")


def _of_causal(mask: Tensor, batch: int, past: int) -> Padding:
    """Read padding from a causal mask (B or 1, 1, S, P + S), bool or additive."""
    visible = (mask if mask.dtype == torch.bool else mask == 0)[:, 0].expand(batch, -1, -1)
    valid = visible[:, -1]  # the last token sees everything that is real
    length = visible.shape[1]
    causal = torch.ones(length, past + length, dtype=torch.bool, device=mask.device).tril(past)
    real = valid[:, past:]
    expected = causal & valid[:, None]
    others = visible[:, :, past:] & ~torch.eye(length, dtype=torch.bool, device=mask.device)
    seen_padding = (others & ~real[:, None]).any()  # then it is another sample
    if bool(seen_padding) or not bool((visible == expected)[real].all()):
        raise DuetError(
            "the four-dimensional attention_mask is not causal with padding, so rows hold several samples or a window: "
            "give every sample a row of its own and the two-dimensional mask of the tokenizer."
        )
    return Padding(real, valid[:, :past] if past else None)
