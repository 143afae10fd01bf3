"""What a call of the model says about its text before the core sees it: which of it is an answer, and who calls.

It travels in context variables, set at a call's entrance and reset at its exit, also where the call fails: a model's
own forward may pass on nothing, and no module remembers anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..stage2.queries import IGNORED


@dataclass
class ModelCall:
    """What one forward call says: a call of the whole model, or of the core model where that is called by itself.

    Attributes:
        labels: (B, S) long, answers marked, from `labels` or `duet_labels`; None where the call has neither.
        together: whether a row's positions may go back, because all its questions ask about the same images; from
            `duet_together`.
        answer: how many tokens at the end are no question, though nothing labels them.
        logits: (B, S) bool, the places whose logits are computed; None for what the caller chose.
        outer: the call that this one is made in.
    """

    labels: Tensor | None = None
    together: bool = False
    answer: int = 0
    logits: Tensor | None = None
    outer: ModelCall | None = None

    def hear(self, kwargs: dict[str, Any], labels: Tensor | None) -> None:
        """Take what is said to this package alone out of a call's keyword arguments; `labels` come before it."""
        own, together = kwargs.pop("duet_labels", None), kwargs.pop("duet_together", False)
        self.labels = own if labels is None else labels
        self.together = self.together or together


@dataclass
class Generation:
    """One call of `generate`.

    Attributes:
        owner: the handle of the model that generates.
        rows: of the ids that it was called with; None where there were none.
        prompt: tokens of the prompt, once it was seen; without a cache all later tokens come again with it.
        guarded: whether it may fall back to all visual tokens.
        first: arguments of the call that reads the compressed prompt, and the cache's layers before it.
        whole: whether the prompt is being read again, by the stock model.
    """

    owner: Any
    rows: int | None = None
    prompt: int | None = None
    guarded: bool = False
    first: tuple[dict[str, Any], list[Any]] | None = None
    whole: bool = False

    def repeats(self, rows: int) -> int:
        """How often each row and each tensor stands one behind the other now, for beams or several sequences."""
        return rows // self.rows if self.rows else 1


_call: ContextVar[ModelCall | None] = ContextVar("duet_vlm_call", default=None)
_generation: ContextVar[Generation | None] = ContextVar("duet_vlm_generation", default=None)


def begin() -> ModelCall:
    """Enter a forward call of the whole model."""
    call = ModelCall(outer=_call.get())
    _call.set(call)
    return call


def at_core(kwargs: dict[str, Any]) -> ModelCall:
    """Return the call that is under way, together with what these arguments of the core model say."""
    call = _call.get() or ModelCall()
    if "duet_labels" in kwargs or "duet_together" in kwargs:
        call = replace(call)
        call.hear(kwargs, call.labels)
    return call


def end() -> ModelCall | None:
    """Leave a forward call of the whole model."""
    call = _call.get()
    if call is not None:
        _call.set(call.outer)
    return call


def ids_of(args: Any, kwargs: dict[str, Any]) -> Any:
    """The ids that `generate` is called with, if any."""
    return kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))


@contextlib.contextmanager
def generating(owner: Any, args: Any, kwargs: dict[str, Any], guarded: bool = False) -> Iterator[None]:
    """Inside, `owner`'s model generates, called with these arguments; `guarded` says whether it may fall back."""
    ids = ids_of(args, kwargs)
    token = _generation.set(Generation(owner, len(ids) if isinstance(ids, Tensor) else None, guarded=guarded))
    try:
        yield
    finally:
        _generation.reset(token)


def generation(owner: Any) -> Generation | None:
    """Return the call of `generate` that is under way, if it is one of this owner's model."""
    under_way = _generation.get()
    return under_way if under_way is not None and under_way.owner is owner else None


def is_whole(owner: Any) -> bool:
    """Whether a prompt of this owner's model is being read again, by the stock model."""
    under_way = generation(owner)
    return under_way is not None and under_way.whole


def scored_answer(kept: Any, length: int) -> int | None:
    """Count the tokens at the end that `logits_to_keep` marks as an answer; None where it says nothing.

    The logits of n places at the end predict the n - 1 tokens behind the first of them, and one that is not there yet:
    a draft that is verified, or an answer that is scored.

    Args:
        kept: an int, or the places as a one-dimensional tensor.
        length: of the sequence.
    """
    if isinstance(kept, Tensor) and kept.ndim == 1 and kept.numel() and kept.dtype != torch.bool:
        earliest = int(kept.min())
        return length - 1 - (earliest + length if earliest < 0 else earliest)
    if isinstance(kept, int) and kept >= 1:
        return min(kept, length) - 1
    return None


def labels_of(call: ModelCall, generation: Generation | None, ids: Tensor, past: int) -> Tensor | None:
    """Return labels (B, S) that mark the answers in `ids`: labels of the call, drafts, or generated text; None without.

    Args:
        call: of the model.
        generation: the `generate` that makes it, which notes the length of its prompt; None outside of one.
        ids: (B, S) token ids.
        past: tokens that the cache has seen.
    """
    if call.labels is not None:
        return call.labels
    answer = call.answer
    if generation is not None and not past:
        if generation.prompt is None:
            generation.prompt = ids.shape[1] - answer
        answer = ids.shape[1] - generation.prompt
    if answer <= 0:
        return None
    labels = torch.full_like(ids, IGNORED)
    labels[:, -answer:] = ids[:, -answer:]
    return labels
