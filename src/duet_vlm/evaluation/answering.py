"""One batch of questions through `generate`, and what it cost: answers, tokens, KV bytes, times."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..applying import apply
from ..config.decoder_shape import DecoderShape
from ..engine.trace import Trace
from ..errors import DuetError
from ..families import is_visual
from ..families.placeholders import check_text
from ..host import output_cache
from ..inputs.prompts import context, processing, prompt, special_tokens
from ..inputs.video.inputs import content, show_frames, video_inputs
from ..measuring.generation import TokenTimes, bytes_per_token
from ..measuring.timing import Clock
from .records import Record
from .runs import Run


@dataclass(frozen=True)
class Answer:
    """One record's answer.

    Attributes:
        text: without special tokens and spaces around it.
        tokens_in, tokens_avg, tokens_last: visual tokens in the first decoder layer, on average, and in the last one.
        kv_bytes: keys and values of the prompt, all layers, padding not counted.
        seconds: its share of the batch's time, from pixels to the last token.
        seconds_to_first_token: until the batch had its first tokens.
        margin: with `fallback`, by how much the probability of the first token led; None without.
        fell_back: whether it was given again with all visual tokens; the tokens are then those of both readings.
        flops: of the decoder's prefill; None where nobody counts them.
    """

    text: str
    tokens_in: int
    tokens_avg: float
    tokens_last: int
    kv_bytes: int
    seconds: float
    seconds_to_first_token: float
    margin: float | None = None
    fell_back: bool = False
    flops: int | None = None


@dataclass
class Batch:
    """Records as the processor put them together, on the model's device.

    Attributes:
        inputs: `input_ids` (B, S) and the rest, padded on the left.
        visual: (B,) visual tokens of each row, uncompressed.
        text: (B,) the other tokens of each row, without padding.
    """

    records: Sequence[Record]
    inputs: Any
    visual: list[int]
    text: list[int]


class Asker:
    """A model, its processor, and how they are asked.

    Args:
        model: a supported model.
        processor: its processor.
        max_new_tokens: the longest answer; None for the model's own limit, or 32.
        seed: of methods that draw tokens at random.
        shape: of the decoder, by which the operations of a prefill are counted; None to leave that.
    """

    def __init__(
        self, model: Any, processor: Any, max_new_tokens: int | None = None, seed: int = 0,
        shape: DecoderShape | None = None,
    ):  # fmt: skip
        self.model, self.processor, self.seed, self.shape = model, processor, seed, shape
        own_limit = model.generation_config.max_new_tokens
        self.max_new_tokens = max_new_tokens or own_limit or 32

    def load_media(self, record: Record) -> Any:
        """The PIL image of a record, or the frames of its video.

        Raises:
            DuetError: it cannot be read, the model takes no video, or the question holds the place of a picture.
        """
        check_text(record.question, self.processor, self.model.config)
        if record.video is None:
            return record.image()
        return show_frames(record.video, self.model.config, self.processor)

    def prepare(self, records: Sequence[Record], media: Sequence[Any]) -> Batch:
        """Prompts of one image each, padded on the left; or a single prompt with a video.

        Args:
            media: what `load_media` gave for each record.

        Raises:
            DuetError: the processor refuses one of them, or the prompt is longer than the model's context.
        """
        config, marks = self.model.config, special_tokens(self.processor)
        if records[0].video is None:
            texts = [prompt(self.processor, record.question) for record in records]
            more = {"padding": True, "padding_side": "left"} if len(texts) > 1 else {}
            encode = partial(self.processor, images=list(media), text=texts, return_tensors="pt", **more, **marks)
        else:
            text = prompt(self.processor, records[0].question, content(config, media[0]))
            encode = partial(video_inputs, config, self.processor, media[0], text, **marks)
        with processing("it", "leave it out"):
            inputs = encode()
        inputs = inputs.to(self.model.device, self.model.dtype)
        length, longest = inputs["input_ids"].shape[1], context(config)
        if longest is not None and length > longest:
            raise DuetError(f"its prompt of {length} tokens exceeds the model's context of {longest}: shorten it.")
        ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
        visual = is_visual(config, ids).sum(1)
        return Batch(records, inputs, visual.tolist(), (real.sum(1) - visual).tolist())

    def ask(self, run: Run, batch: Batch) -> list[Answer]:
        """Every record of the batch under one run. The model is stock again afterwards."""
        return self._ask(run, batch)[0]

    def ask_with_trace(self, run: Run, batch: Batch) -> tuple[list[Answer], Trace | None]:
        """The same, and what was kept; None where nothing is compressed."""
        return self._ask(run, batch)

    def _ask(self, run: Run, batch: Batch) -> tuple[list[Answer], Trace | None]:
        with apply(self.model, run.config, tokenizer=self.processor) as handle:
            out, first_token, seconds = self._generate(run, batch)
            trace = handle.trace
        batch_size, length = batch.inputs["input_ids"].shape
        texts = self.processor.batch_decode(out.sequences[:, length:], skip_special_tokens=True)
        unit = bytes_per_token(output_cache(out))
        answers = []
        for row in range(batch_size):
            sample = None if trace is None else trace.samples[row]
            counts = held = [batch.visual[row]] * len(unit)
            if sample is not None:
                counts, held = sample.work_per_layer, sample.held_per_layer
            stored = sum((n + batch.text[row]) * size for n, size in zip(held, unit, strict=True))
            guard = (None, False) if sample is None else (sample.margin, sample.fell_back)
            average, times = sum(counts) / len(counts), (seconds / batch_size, first_token)
            flops = None
            if self.shape is not None:
                flops = self.shape.prefill_flops([n + batch.text[row] for n in counts])
            answers.append(Answer(texts[row].strip(), counts[0], average, counts[-1], stored, *times, *guard, flops))
        return answers, trace

    def _generate(self, run: Run, batch: Batch) -> tuple[Any, float, float]:
        tokens, device = TokenTimes(), self.model.device
        clock = Clock(device)
        # whatever else is asked, before or in the same batch, and in which process: an image draws the same tokens
        seed = f"{self.seed} {run.label}".encode()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int.from_bytes(hashlib.sha256(seed).digest()[:7]))
            started = clock.now()
            out = self.model.generate(
                **batch.inputs, do_sample=False, max_new_tokens=self.max_new_tokens, streamer=tokens,
                return_dict_in_generate=True,
            )  # fmt: skip
            ended = clock.now()
        return out, tokens.times[1] - started, ended - started
