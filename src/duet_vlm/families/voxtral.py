"""Voxtral: Whisper's encoder reads chunks of 30 seconds, whose frames are joined by fours before the projector."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .audio_only import AudioOnly
from .encoding import EncoderCall
from .hearing import AudioStage1

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CHUNK, WINDOW = 30, 2  # seconds


def frames_of_token(config: PreTrainedConfig) -> int:
    """Frames of the encoder that are joined to one token."""
    return int(config.audio_config.intermediate_size // config.audio_config.hidden_size)


def tokens_of_chunk(config: PreTrainedConfig) -> int:
    """Audio tokens of 30 seconds, silence at the end of a sound among them."""
    return int(config.audio_config.max_source_positions // frames_of_token(config))


class VoxtralStage1(AudioStage1):
    """The encoder attends across a whole chunk; chunks are merged one by one, and those of a sound ranked together."""

    @property
    def window(self) -> int:
        return max(1, tokens_of_chunk(self.core.config) * WINDOW // CHUNK)

    def sounds(self, call: EncoderCall) -> Iterator[tuple[Tensor, Tensor]]:
        group = frames_of_token(self.core.config)
        scores, keys = (torch.cat(x).unflatten(1, (-1, group)).mean(2) for x in (call.scores, call.keys))
        yield from zip(scores.split(1), keys.split(1), strict=True)


class Voxtral(AudioOnly, model_types=("voxtral",)):
    runs = ("audio",)
    audio_stage1 = VoxtralStage1

    def audio_tokens(self, config: PreTrainedConfig, seconds: float) -> int:
        return math.ceil(seconds / CHUNK) * tokens_of_chunk(config)
