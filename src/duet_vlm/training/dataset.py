"""Conversations as tensors: a dataset that reads pictures when they are asked for, and a collator that batches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..config.arguments import tokenizer_of
from ..families.video.sampling import starts
from ..inputs.images import read_image
from ..inputs.video.decoding import Clip, read_frames
from ..stage2.queries import IGNORED
from .conversations import Rendered, Renderer
from .records import Conversation

if TYPE_CHECKING:
    from transformers import ProcessorMixin


@dataclass(frozen=True)
class Loaded:
    """A conversation, rendered, with its RGB pictures and its videos."""

    rendered: Rendered
    images: tuple[Any, ...] = ()
    videos: tuple[Clip, ...] = ()


class Conversations(Dataset[Loaded]):
    """What was found good, in file order.

    Args:
        listed: the conversations.
        renderer: the model's chat template.
        video_frames: frames read from a video.
    """

    def __init__(self, listed: Sequence[Conversation], renderer: Renderer, video_frames: int):
        self.listed, self.renderer, self.video_frames = listed, renderer, video_frames

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, index: int) -> Loaded:
        chosen = self.listed[index]
        return Loaded(
            self.renderer(chosen.messages),
            tuple(read_image(path) for path in chosen.images),
            tuple(read_video(path, self.video_frames) for path in chosen.videos),
        )


def read_video(path: Path, count: int) -> Clip:
    """`count` frames or all of a shorter video, from its whole length."""
    return read_frames(path, lambda total, rate: starts(total, min(count, total)))


class Collator:
    """Batches by the model's own processor, with labels on answers alone.

    Args:
        processor: pads on its tokenizer's side and prepares the pixels.
        max_length: longer conversations lose their end, in tokens after images are expanded; None for no limit.
    """

    def __init__(self, processor: ProcessorMixin, max_length: int | None = None):
        self.processor, self.max_length = processor, max_length
        self.tokenizer = tokenizer_of(processor)

    def __call__(self, rows: Sequence[Loaded]) -> dict[str, Any]:
        """(B, S) input_ids, attention_mask, labels, and what else the processor gives."""
        bos = self.tokenizer.bos_token
        options: dict[str, Any] = {
            "padding": True, "return_tensors": "pt", "return_offsets_mapping": True,
            "return_text_replacement_offsets": True,
        }  # fmt: skip
        if bos and rows[0].rendered.text.startswith(bos):
            options["add_special_tokens"] = False  # the template writes it
        if self.max_length is not None:
            options |= {"truncation": True, "truncation_side": "right", "max_length": self.max_length}
        images = [image for row in rows for image in row.images]
        if images:
            options["images"] = images
        clips = [clip for row in rows for clip in row.videos]
        if clips:
            options["videos"] = [clip.frames for clip in clips]
            options |= {"video_metadata": [clip.metadata() for clip in clips], "do_sample_frames": False}
        batch = dict(self.processor(text=[row.rendered.text for row in rows], **options))
        replaced = batch.pop("text_replacement_offsets", None) or [[]] * len(rows)
        flags = [
            answer_tokens(offsets, expanded(row.rendered.answers, spans))
            for offsets, spans, row in zip(batch.pop("offset_mapping"), replaced, rows, strict=True)
        ]
        batch["labels"] = batch["input_ids"].masked_fill(~torch.stack(flags), IGNORED)
        return batch


def expanded(spans: Sequence[tuple[int, int]], replaced: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """Spans of the rendered text -> spans of the text in which the processor wrote out its placeholders."""
    gained = [(r["span"][1], r["new_span"][1] - r["span"][1]) for r in replaced]

    def moved(place: int) -> int:
        return place + max((by for end, by in gained if end <= place), default=0)

    return [(moved(start), moved(end)) for start, end in spans]


def answer_tokens(offsets: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
    """(S, 2) long, each token's characters, and spans -> (S,) bool, tokens inside one; padding has no characters."""
    start, end = offsets[:, 0], offsets[:, 1]
    inside = torch.zeros(len(offsets), dtype=torch.bool)
    for first, last in spans:
        inside |= (start < last) & (end > first)
    return inside
