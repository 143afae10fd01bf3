"""Promises about numbers of tokens: what is kept, and what the cache holds."""

from __future__ import annotations

from itertools import groupby
from math import isqrt
from typing import Any

from torch import Tensor

from ..config.budget import after_drops, stage1_counts
from ..config.decoder_shape import DecoderShape
from ..engine.trace import ImageTrace
from ..families import family_of, is_visual, visual_token_ids
from ..host import layers_with_keys, output_cache
from ..pictures import spread
from ..presets import DuetConfig
from .report import FAILS, NOT_CHECKED, Line, judged
from .state import unchanged
from .subject import Subject


def schedule(model: Any, duet: DuetConfig, row: dict[str, Tensor], images: list[ImageTrace], layers: int) -> list[int]:
    """Visual tokens of a prompt with one picture that each decoder layer works on, by arithmetic alone.

    Args:
        model: uncompressed.
        row: the prompt, (1, S).
        images: what stage 1 was given; only how many tokens each had is read, or retained where the picture says it.
        layers: of the decoder.
    """
    config = model.config
    family, token = family_of(config), visual_token_ids(config)["image"]
    runs = [len(list(run)) for is_image, run in groupby(i == token for i in row["input_ids"][0].tolist()) if is_image]
    spans = runs if "image" in family.runs else [sum(runs)]
    if duet.pixelprune is not None:
        spans = [sum(len(image.dominant) + len(image.anchors) for image in images)]  # what the picture repeats is gone
    elif duet.merges and family.dynamic:
        spans = [sum(sum(stage1_counts(duet, len(image.scores), True)) for image in images)]
    elif duet.merges:
        one = family.visual_tokens(config)
        retained = sum(stage1_counts(duet, one))
        crops, sizes = family.crops_in(row), family.packed_sizes(row)
        tiles = 1 if crops is None else len(crops)
        if sizes is not None:  # crops of which stock cuts the padding off
            (rows, _), *_ = spread.packed(model.base_model, sizes, tiles, isqrt(one))
            spans = [round((sum(spans) - rows) * retained / one)]
        else:
            spans = [length // one * retained for length in spans] if "image" in family.runs else [tiles * retained]
    return [sum(counts) for counts in zip(*(after_drops(duet, span, layers) for span in spans), strict=True)]


def kept_counts(promise: str, subject: Subject) -> Line:
    """What the trace says of each prompt, alone and in a batch, against the schedule."""
    layers, counted, expected = len(subject.decoder.layers), [], []
    pictures = [row for row in subject.singles if _has_picture(subject, row)]
    with unchanged(subject.model), subject.apply() as handle:
        for row in pictures:
            subject.logits(row)
            trace = handle.trace
            if trace is None:
                return _nothing(promise, subject)
            expected.append(schedule(subject.model, subject.config, row, trace.images, layers))
            counted.append(trace.samples[0].tokens_per_layer)
        subject.logits(subject.batch)
        assert handle.trace is not None
        counted += [sample.tokens_per_layer for sample in handle.trace.samples]
    expected += [*expected, *([[0] * layers] * (len(subject.singles) - len(pictures)))]
    wrong = max(abs(a - b) for got, want in zip(counted, expected, strict=True) for a, b in zip(got, want, strict=True))
    return judged(promise, wrong, 0.0, f"tokens; visual tokens per layer of the first prompt: {_runs(expected[0])}",
                  _told(counted, expected) if wrong else "")  # fmt: skip


def kv_bytes(promise: str, subject: Subject) -> Line:
    """Keys and values that the cache holds after a prompt, against the schedule."""
    shape = DecoderShape.of(subject.model.config, subject.model.dtype.itemsize)
    measured, planned, stored, expected, stock = 0, 0, [], [], 0
    for row in subject.singles:
        stock += _bytes(output_cache(subject.forced(row, subject.answer[:1])))
        with unchanged(subject.model), subject.apply() as handle:
            cache, trace = output_cache(subject.forced(row, subject.answer[:1])), handle.trace
            if _has_picture(subject, row) and trace is None:
                return _nothing(promise, subject)
            images = trace.images if trace is not None else []
        counts = [0] * shape.layers
        if _has_picture(subject, row):
            counts = schedule(subject.model, subject.config, row, images, shape.layers)
        text = int((~is_visual(subject.model.config, row["input_ids"])).sum())
        compressed = _has_picture(subject, row) and subject.config.compresses
        tokens = [text + n for n in counts]
        expected.append([shape.layer(i).stored(n, compressed) for i, n in enumerate(tokens) if shape.stores(i)])
        stored.append([int(layer.keys.shape[-2]) for layer in layers_with_keys(cache)])
        measured += _bytes(cache)
        planned += sum(shape.layer_kv_bytes(n, i, compressed) for i, n in enumerate(tokens))
    fault = "" if stored == expected else _told(stored, expected)
    said = f"bytes; {measured} for the three prompts, of stock's {stock}"
    return judged(promise, abs(measured - planned), 0.0, said, fault)


def _nothing(promise: str, subject: Subject) -> Line:
    if subject.config.compresses:
        return Line(promise, FAILS, None, 0.0, "no compressed prefill was seen")
    return Line(promise, NOT_CHECKED, None, 0.0, "these settings compress nothing")


def _has_picture(subject: Subject, row: dict[str, Tensor]) -> bool:
    return family_of(subject.model.config).pixels_in(row) is not None


def _bytes(cache: Any) -> int:
    """What keys and values occupy, with what they are views of."""
    return sum(
        part.untyped_storage().nbytes() for layer in layers_with_keys(cache) for part in (layer.keys, layer.values)
    )


def _told(counts: list[list[int]], expected: list[list[int]]) -> str:
    number = next(i for i, (a, b) in enumerate(zip(counts, expected, strict=True)) if a != b)
    return f"prompt {number + 1} has {_runs(counts[number])} tokens per layer instead of {_runs(expected[number])}"


def _runs(counts: list[int]) -> str:
    return ", ".join(f"{n} x {len(list(run))}" for n, run in groupby(counts))
