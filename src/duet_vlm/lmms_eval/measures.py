"""What a batch cost: visual tokens, time to the first token and KV bytes, in the form that lmms-eval logs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lmms_eval.api.instance import TokenCounts
from transformers import LogitsProcessor

from ..engine.trace import Trace
from ..measuring.generation import bytes_per_token
from ..measuring.timing import Clock

LOGGED = ("tokens_in", "tokens_avg", "tokens_last", "kv_bytes", "prefill_ms")


@dataclass
class Measures(TokenCounts):
    """lmms-eval's token counts of one question, and what compression is about; samples are logged with all of it.

    Attributes:
        tokens_in: visual tokens that enter the language model, of all images and frames of the question.
        tokens_avg: visual tokens that a decoder layer works on, averaged over the layers.
        tokens_last: visual tokens in the last decoder layer.
        kv_bytes: bytes of keys and values stored for the prompt, padding left out.
        prefill_ms: milliseconds from the call of `generate` to the first token of the question's batch: vision tower,
            stage 1 and prefill.
    """

    tokens_in: int = 0
    tokens_avg: float = 0.0
    tokens_last: int = 0
    kv_bytes: int = 0
    prefill_ms: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data without what is unknown."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class FirstTokenClock(LogitsProcessor):
    """Notes when the first logits are there; changes nothing."""

    def __init__(self, device: torch.device) -> None:
        self.clock = Clock(device)
        self.started = self.clock.now()
        self.first: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.first is None:
            self.first = self.elapsed()
        return scores

    def elapsed(self) -> float:
        """Seconds since it was made, with the device's work done."""
        return self.clock.now() - self.started


def measures_of(
    inputs: Any, visual: torch.Tensor, trace: Trace | None, cache: Any, clock: FirstTokenClock
) -> list[Measures]:
    """One record for every row of a batch; output tokens are left to the caller.

    Args:
        inputs: what `generate` was given.
        visual: (B, n) bool, the visual tokens of the prompts.
        trace: of this prefill, or None where nothing was compressed; beams repeat a row.
        cache: what `generate` left behind.
        clock: that ran along.
    """
    batch_size, per_token = len(visual), bytes_per_token(cache)
    whole, prompt = visual.sum(1).tolist(), inputs["attention_mask"].sum(1).tolist()
    measures = []
    for row in range(batch_size):
        if trace is None:
            counts = [whole[row]] * len(per_token)
        else:
            counts = trace.samples[row * len(trace.samples) // batch_size].work_per_layer
        text = prompt[row] - whole[row]
        measures.append(
            Measures(
                input_tokens=prompt[row],
                tokens_in=counts[0],
                tokens_avg=sum(counts) / len(counts),
                tokens_last=counts[-1],
                kv_bytes=sum((text + n) * size for n, size in zip(counts, per_token, strict=True)),
                prefill_ms=1000 * (clock.first or 0.0),
            )
        )
    return measures


def summary(tasks: Iterable[str], measures: list[Measures]) -> dict[str, float]:
    """Means over all questions, and over those of each task where there are several; lmms-eval puts `avg_` before."""
    by_task: dict[str, list[Measures]] = {}
    for task, measured in zip(tasks, measures, strict=True):
        by_task.setdefault(task, []).append(measured)
    means = _means("", measures)
    if len(by_task) > 1:
        for task, some in by_task.items():
            means |= _means(f"{task}/", some)
    return means


def _means(prefix: str, measures: list[Measures]) -> dict[str, float]:
    return {f"{prefix}{name}": sum(getattr(m, name) for m in measures) / len(measures) for name in LOGGED}
