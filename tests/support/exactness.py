"""What tests of exactness compare: what a trace says is alive, greedy answers with logits, and how close is equal."""

from __future__ import annotations

from typing import Any

import torch
import zoo
import zoo_omni
from oracle import token_sizes
from torch import Tensor

import duet_vlm

TOLERANCE = 2e-5  # float32: a gathered sum adds in another order than a masked one


def close(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def kept(handle: duet_vlm.Duet, batch: dict[str, Any], more: int = 0) -> dict[int, Tensor]:
    """drop layer -> (B, S + more) bool, what the trace says is alive from there on."""
    trace, out = handle.trace, {}
    assert trace is not None
    media, kinds = zoo.visual(batch), [trace.samples]
    if trace.audio is not None:
        media, kinds = media | zoo.audio(batch), [trace.samples, trace.audio.samples]
    for layer in [d.layer for d in trace.samples[0].drops]:
        alive = batch["attention_mask"].bool() & ~media
        for samples in kinds:
            for row, sample in enumerate(samples):
                alive[row, next(d for d in sample.drops if d.layer == layer).kept] = True
        out[layer] = torch.cat([alive, torch.ones(len(alive), more, dtype=torch.bool)], 1)
    return out


def per_layer(handle: duet_vlm.Duet) -> list[list[int]]:
    """How many tokens of images, videos and sounds each layer works on in each row, by the trace."""
    trace = handle.trace
    assert trace is not None
    kinds = [trace.samples] if trace.audio is None else [trace.samples, trace.audio.samples]
    rows = zip(*kinds, strict=True)
    return [[sum(n) for n in zip(*(sample.tokens_per_layer for sample in row), strict=True)] for row in rows]


def weights(handle: duet_vlm.Duet, batch: dict[str, Any], family: str, more: int = 0) -> Tensor | None:
    """(B, S + more) how often each key counts, where that is not once."""
    return token_sizes(handle.trace, batch, family, more) if handle.config.proportional else None


def generate(model: Any, batch: dict[str, Any], new: int = 5, **options: Any) -> Any:
    """Greedy answers of words alone, with the logits of every step."""
    options = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True} | options
    suppressed = [zoo.IMAGE, zoo.VIDEO, zoo.START, zoo.END]
    if "input_features" in batch:
        suppressed += [zoo_omni.AUDIO, zoo_omni.AUDIO_START, zoo_omni.AUDIO_END]
    return model.generate(**batch, max_new_tokens=new, suppress_tokens=suppressed, **options)
