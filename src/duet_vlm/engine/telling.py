"""What a call of the model says about its text before the core sees it: which of it is an answer, and who calls.

It travels in context variables, set at a call's entrance and reset at its exit, also where the call fails: a model's
own forward may pass on nothing, and no module remembers anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..stage2.queries import IGNORED


@dataclass
class Told:
    """What one forward call of the whole model says.

    Attributes:
        labels: (B, S), answers marked, or None.
        answer: how many tokens at the end are no question, though nothing labels them.
        logits: (B, S) bool, the places whose logits are computed; None for what the caller chose.
        before: what an outer call said.
    """

    labels: Tensor | None = None
    answer: int = 0
    logits: Tensor | None = None
    before: Told | None = None


@dataclass
class Generation:
    """One call of `generate`.

    Attributes:
        owner: the handle of the model that generates.
        prompt: tokens of the prompt, once it was seen; without a cache all later tokens come again with it.
    """

    owner: Any
    prompt: int | None = None


_told: ContextVar[Told | None] = ContextVar("duet_vlm_told", default=None)
_generation: ContextVar[Generation | None] = ContextVar("duet_vlm_generation", default=None)


def begin() -> Told:
    """Enter a forward call of the whole model."""
    told = Told(before=_told.get())
    _told.set(told)
    return told


def current() -> Told | None:
    """What the forward call that is under way here said."""
    return _told.get()


def end() -> Told | None:
    """Leave a forward call of the whole model."""
    told = _told.get()
    if told is not None:
        _told.set(told.before)
    return told


@contextlib.contextmanager
def generating(owner: Any) -> Iterator[None]:
    """Inside, `owner`'s model generates."""
    token = _generation.set(Generation(owner))
    try:
        yield
    finally:
        _generation.reset(token)


def generation(owner: Any) -> Generation | None:
    """The call of `generate` that is under way here, if it is of this owner's model."""
    found = _generation.get()
    return found if found is not None and found.owner is owner else None


def answer_asked_for(kept: Any, length: int) -> int | None:
    """How many tokens at the end `logits_to_keep` takes for an answer; None where it says nothing.

    The logits of n places at the end predict the n - 1 tokens behind the first of them, and one that is not there yet:
    a draft that is verified, or an answer that is scored.

    Args:
        kept: an int, or the places as a one-dimensional tensor.
        length: of the sequence.
    """
    if isinstance(kept, Tensor) and kept.ndim == 1 and kept.numel() and kept.dtype != torch.bool:
        first = int(kept.min())
        return length - 1 - (first + length if first < 0 else first)
    if isinstance(kept, int) and kept >= 1:
        return min(kept, length) - 1
    return None


def marked(ids: Tensor, answer: int) -> Tensor:
    """(B, S) labels that mark the last `answer` tokens of ids (B, S)."""
    labels = torch.full_like(ids, IGNORED)
    if answer > 0:
        labels[:, -answer:] = ids[:, -answer:]
    return labels
