"""Qwen2-Audio: Whisper's encoder of 30 seconds, whose frames are pooled by twos, in the core model's own forward."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import DuetError
from ..host.embedding import embedded
from ..host.refs import MethodOverride
from .audio_only import AudioOnly
from .encoding import EncoderCall
from .hearing import AudioStage1

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

LONGEST, FRAMES_PER_SECOND = 30, 100  # seconds; of the spectrum


class Qwen2AudioStage1(AudioStage1):
    """The encoder attends across the whole sound, padding left out."""

    window = 50  # tokens, two seconds

    def hook(self) -> list[Any]:
        """Put the method that the core model lacks on this one model object, and stage 1 around it."""
        return [MethodOverride(self.core, self.encoders[0], self.encode), *super().hook()]

    def encode(
        self,
        input_features: Tensor,
        feature_attention_mask: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Encode the sounds of a prompt, as the core model's own forward does it."""
        embeds = embedded(
            self.core, input_ids=input_ids, input_features=input_features, attention_mask=attention_mask,
            feature_attention_mask=feature_attention_mask,
        )  # fmt: skip
        if embeds.shape[1] != input_ids.shape[1]:
            raise DuetError(
                "a sound came with one placeholder for all of its audio tokens: process text and sound in one call of "
                "the processor, which writes as many as there are."
            )
        return SimpleNamespace(pooler_output=embeds[input_ids == self.core.config.audio_token_id])

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        frames, _ = self.tower._get_feat_extract_output_lengths(call.arguments["feature_attention_mask"].sum(-1))
        for number, length in enumerate(frames.tolist()):
            # without a mask, from its own frames
            super().before_attention(call, attention, hidden[number : number + 1, :length], {})

    def sounds(self, call: EncoderCall) -> Iterator[tuple[Tensor, Tensor]]:
        for scores, keys in zip(call.scores, call.keys, strict=True):
            tokens = scores.shape[1] // 2  # an odd frame at the end is left out
            yield tuple(x[:, : 2 * tokens].unflatten(1, (tokens, 2)).mean(2) for x in (scores, keys))


class Qwen2Audio(AudioOnly, model_types=("qwen2_audio",)):
    audio_stage1 = Qwen2AudioStage1

    def audio_tokens(self, config: PreTrainedConfig, seconds: float) -> int:
        """Of the first 30 seconds, which are all that its processor hands over."""
        frames = (int(min(seconds, LONGEST) * FRAMES_PER_SECOND) - 1) // 2 + 1
        if frames < 2:
            raise DuetError(f"a sound of {seconds:g} seconds is less than one audio token: give 0.04 or more.")
        return frames // 2
