"""A processor for the zoo's models, with the zoo's own images, and what tests ask of a check."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from matrix import settings
from torch import Tensor

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.checks.checking import PROMISES
from duet_vlm.checks.report import Report
from duet_vlm.engine import cache
from duet_vlm.engine import hooks as engine

OFF, TEXT, REMOVED, CACHED, BATCH, COUNTS, BYTES, TURN, BEAMS, THREADS, FAILED = PROMISES
HOOK_KINDS = ("_forward_pre_hooks", "_forward_hooks")


class Tokenizer(tiny.Words):
    """Words of the zoo, with what a stock tokenizer tells of its special tokens."""

    all_special_ids = (zoo.PAD, 1, 2, zoo.IMAGE, zoo.VIDEO, zoo.START, zoo.END, 94)
    bos_token = chat_template = None
    pad_token_id, eos_token_id = zoo.PAD, 2


class Processor:
    """Called as a stock processor is, with one text and at most one picture."""

    image_processor, chat_template = "drawn by the zoo", None

    def __init__(self, family: str, dtype: torch.dtype = torch.float32):
        self.family, self.tokenizer = family, Tokenizer()

    def __call__(self, text: str, images: Any = None, return_tensors: str = "pt", **_: Any) -> dict[str, Any]:
        words = len(text.split())
        row: tuple[int | str, ...] = (words,) if images is None else (3, "i", words)
        return zoo.inputs(self.family, (row,), first=words)


def checked(model: Any, family: str = "llava", config: DuetConfig | None = None) -> Report:
    return duet_vlm.check(model, Processor(family), config or settings(family))


def results(report: Report) -> dict[str, str]:
    return {line.promise: line.result for line in report.lines}


def broken(report: Report) -> list[str]:
    return [line.promise for line in report.failing]


def note(report: Report, promise: str) -> str:
    return next(line.note for line in report.lines if line.promise == promise)


def hooks_of(model: Any) -> list[Any]:
    return [hook for m in model.modules() for kind in HOOK_KINDS for hook in getattr(m, kind).values()]


def of_stock(hook: Any) -> bool:
    """Stock modules put hooks on themselves when they are first called."""
    return str(hook.__module__).startswith("transformers.")


def decoder(model: Any) -> Any:
    return model.model.language_model


def applied(model: Any) -> bool:
    return any(isinstance(getattr(h, "__self__", None), engine.Engine) for h in model._forward_pre_hooks.values())


def beams_raise(model: Any, patch: pytest.MonkeyPatch) -> None:
    def reorder(self: Any, beam_idx: Tensor) -> None:
        raise RuntimeError("rows cannot be reordered")

    patch.setattr(cache.PrunedLayer, "reorder_cache", reorder)
