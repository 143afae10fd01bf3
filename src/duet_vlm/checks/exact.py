"""Promises that hold bit for bit: what is off, removed, without a picture, or over, leaves nothing behind."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..presets import DuetConfig
from .report import FAILS, NOT_CHECKED, Line, judged
from .state import State, unchanged
from .subject import Subject, largest

Pair = tuple[Tensor, Tensor]


def _line(promise: str, subject: Subject, pairs: list[Pair], note: str, fault: str = "") -> Line:
    again = subject.stock["again"]
    if again > 0 and not fault:
        return Line(
            promise, NOT_CHECKED, None, 0.0, f"stock's own logits differ by {again:.2g} between two equal calls"
        )
    return judged(promise, largest(pairs), 0.0, note, fault)


def _everything(subject: Subject) -> list[Pair]:
    """The batch now and in stock: logits, greedy tokens, logits of every step."""
    tokens, steps = subject.greedy(subject.batch)
    stock = subject.stock
    return [(subject.logits(subject.batch), stock["batch"]), (tokens, stock["tokens"]), (steps, stock["steps"])]


def off(promise: str, subject: Subject) -> Line:
    """A config that does nothing."""
    with unchanged(subject.model), subject.apply(DuetConfig()):
        pairs = _everything(subject)
    return _line(promise, subject, pairs, "logits and greedy tokens of the batch under DuetConfig()")


def text_alone(promise: str, subject: Subject) -> Line:
    """Prompts without a picture, under the settings to try."""
    row, stock = subject.singles[-1], subject.stock
    with unchanged(subject.model), subject.apply():
        pairs = [(subject.logits(row), stock["text"]), (subject.greedy(row)[1], stock["text steps"])]
    return _line(promise, subject, pairs, "logits of a prompt without a picture, and of its greedy answer")


def removed(promise: str, subject: Subject) -> Line:
    """Applied, used, taken off again."""
    with unchanged(subject.model):
        before = State(subject.model)
        handle = subject.apply()
        subject.greedy(subject.batch)
        handle.remove()
        left = before.changes()
        pairs = _everything(subject)
    return _line(promise, subject, pairs, "logits and greedy tokens of the batch, hooks, config.duet", "; ".join(left))


class _Halfway(Exception):
    """Ends a call in the decoder's last layer."""


def failed_call(promise: str, subject: Subject) -> Line:
    """A call that ends with an exception half-way, then the model compressed and stock."""
    row = subject.singles[0]

    def fail(*_: Any) -> None:
        raise _Halfway

    with unchanged(subject.model):
        with subject.apply():
            before, alone = subject.steps(row), subject.logits(row)
            hook = subject.decoder.layers[-1].register_forward_pre_hook(fail)
            try:
                subject.steps(row)
            except _Halfway:
                pass
            else:
                return Line(promise, FAILS, None, 0.0, "the exception of a layer was swallowed")
            finally:
                hook.remove()
            pairs = [(subject.steps(row), before), (subject.logits(row), alone)]
        pairs += _everything(subject)
    return _line(promise, subject, pairs, "the same answer after a call that ended half-way, then stock again")
