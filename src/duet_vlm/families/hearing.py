"""Models that hear: where their audio encoder is tapped, and what stage 1 makes of a sound (docs/audio.md)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config.audio import AudioSchedule
from ..config.settings import Settings
from ..errors import DuetError
from ..host.attention import received
from ..stage1 import Encoded, settings_of
from ..stage1.neighbours import merge_neighbours
from .encoding import ATTRIBUTE, EncoderCall, Outcome, Stage1, within
from .placing import merged_in_place
from .taps import Tap

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class AudioStage1(Stage1):
    """Stage 1 of sounds: retained tokens stay at their own places in time; zeros elsewhere.

    A token's score is the attention that it receives in the encoder's last layer, within what that layer attends
    across, and averaged over the frames that are pooled to one token.
    """

    encoders = ("get_audio_features",)

    def __init__(self, core: Any, config: Settings, family: Any):
        super().__init__(core, config, family)
        schedule = AudioSchedule.of(config, core.config.get_text_config().num_hidden_layers)
        assert schedule is not None
        self.schedule = schedule

    @property
    def tower(self) -> Any:
        return self.core.audio_tower

    @property
    def attention(self) -> Any:
        return self.tower.layers[-1].self_attn

    @property
    def window(self) -> int:
        """Tokens of a window, across which nothing is merged."""
        raise NotImplementedError

    def sounds(self, call: EncoderCall) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores (1, n) and keys (1, n, d) of the tokens of every sound that was encoded."""
        raise NotImplementedError

    def taps(self) -> list[Any]:
        return Tap(self).hook(self.tower, self.attention)

    def before_attention(self, call: EncoderCall, attention: Any, hidden: Tensor, others: dict[str, Any]) -> None:
        for scores, keys in received(attention, hidden, **others):
            call.scores.append(scores)
            call.keys.append(keys)

    @torch.compiler.disable  # in the graphs of some towers no hook runs
    def around_encoder(self, encoder: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = EncoderCall(self, True, dict(inspect.signature(encoder).bind(*args, **kwargs).arguments))
        with within(call):
            output = encoder(*args, **kwargs)
        if not isinstance(output, tuple):
            setattr(output, ATTRIBUTE, self.outcome(call, output))
        return output

    def outcome(self, call: EncoderCall, output: Any) -> Outcome:
        features, sizes, decisions, start = list[Tensor](), list[Tensor](), [], 0
        for scores, keys in self.sounds(call):
            end = start + scores.shape[1]
            encoded = Encoded(scores, keys, output.pooler_output[None, start:end])
            decided = merge_neighbours(encoded, self.schedule.retained(encoded.tokens), self.window)
            tokens, counts = merged_in_place(self.config, decided, encoded.features)
            features.append(tokens[0])
            sizes.append(counts[0])
            decisions.append(decided)
            start = end
        return Outcome(features, sizes, decisions, settings_of(self.config), engine_only=True)


class AudioInputs:
    """The part of a family that hears.

    Attributes:
        audio_arguments: the names under which the model takes sounds; nothing without `audio_stage1`.
        audio_stage1: what hooks the audio encoder; None where the model hears nothing.
    """

    audio_arguments: tuple[str, ...] = ("input_features",)
    audio_stage1: type[AudioStage1] | None = None

    def audio_token(self, config: PreTrainedConfig) -> int:
        """The id of the placeholder of an audio token in prompts."""
        return int(config.audio_token_id)

    def audio_tokens(self, config: PreTrainedConfig, seconds: float) -> int:
        """Audio tokens of a sound of so many seconds, uncompressed.

        Raises:
            DuetError: a model that hears nothing, or a sound that is shorter than one token.
        """
        raise DuetError(f"models of type {config.model_type} hear nothing: leave out the seconds of a sound.")

    def check_audio(self, config: PreTrainedConfig, duet: Settings) -> None:
        """Raise DuetError where sound is to be compressed and cannot be."""
        if duet.audio_keep is not None and self.audio_stage1 is None:
            raise DuetError(
                f"audio_keep {duet.audio_keep:g} is for models whose sound can be compressed, and a "
                f"{config.model_type} is none: leave audio_keep out."
            )

    def hook_audio(self, core: Any, duet: Settings) -> list[Any]:
        """Put stage 1 on a model's audio encoder, where sound is compressed; what it returns has `remove()`."""
        if duet.audio_keep is None or self.audio_stage1 is None:
            return []
        return self.audio_stage1(core, duet, self).hook()
