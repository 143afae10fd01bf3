"""The thinker of Qwen2.5-Omni: pictures and videos as in Qwen2.5-VL, and sound, which is text without `audio_keep`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import DuetError
from .encoding import EncoderCall
from .hearing import AudioStage1
from .qwen2_5_vl import Qwen25VL

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FRAMES_PER_SECOND = 100  # of the spectrum


class OmniAudioStage1(AudioStage1):
    """The encoder attends within chunks of two seconds, and two of its frames, side by side, become one token."""

    @property
    def window(self) -> int:
        return max(1, int(self.tower.n_window) // 2)  # 2 n_window frames of the spectrum, four of which are a token

    def sounds(self, call: EncoderCall) -> Iterator[tuple[Tensor, Tensor]]:
        scores, keys, start = torch.cat(call.scores, 1), torch.cat(call.keys, 1), 0
        lengths = self.tower._get_feat_extract_output_lengths(call.tower_kwargs["feature_lens"])
        for frames, tokens in zip(*(x.tolist() for x in lengths), strict=True):
            pairs = slice(start, start + 2 * tokens)  # an odd frame at the end is left out
            yield tuple(x[:, pairs].unflatten(1, (tokens, 2)).mean(2) for x in (scores, keys))
            start += frames


class Qwen25Omni(Qwen25VL, model_types=("qwen2_5_omni_thinker",)):
    """Sound comes beside ids and is encoded by the core model."""

    video_processor = None  # the commands prepare no sound
    pruning = None
    audio_stage1 = OmniAudioStage1

    def audio_tokens(self, config: PreTrainedConfig, seconds: float) -> int:
        frames = (int(seconds * FRAMES_PER_SECOND) - 1) // 2 + 1
        tokens = (frames - 2) // 2 + 1
        if tokens < 1:
            raise DuetError(f"a sound of {seconds:g} seconds is less than one audio token: give 0.04 or more.")
        return tokens

    def extra_inputs(self, config: PreTrainedConfig, ids: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        """It finds pictures by the ids of their places."""
        return {"image_grid_thw": pixels["image_grid_thw"]}
