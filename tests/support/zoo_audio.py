"""Tiny models that hear and see nothing, and their sounds; rows of the zoo."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from zoo_omni import AUDIO, AUDIO_END, AUDIO_START, tokens_of
from zoo_qwen import LAYERS, Seen

CHUNK, GROUP = 24, 4  # frames of the encoder in a chunk, and those in a token of Voxtral
ENCODER: dict[str, Any] = dict(num_mel_bins=16, max_source_positions=CHUNK)
TEXT: dict[str, Any] = dict(
    vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
    num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=512,
)  # fmt: skip


def voxtral() -> Any:
    audio = ENCODER | dict(hidden_size=16, intermediate_size=16 * GROUP, num_hidden_layers=2, num_attention_heads=2)
    text = TEXT | dict(model_type="llama", head_dim=8)
    config = transformers.VoxtralConfig(audio_config=audio, text_config=text, audio_token_id=AUDIO)
    return transformers.VoxtralForConditionalGeneration(config)


def qwen2_audio() -> Any:
    audio = ENCODER | dict(d_model=16, encoder_ffn_dim=32, encoder_layers=2, encoder_attention_heads=2)
    text = TEXT | dict(model_type="qwen2")
    config = transformers.Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=AUDIO)
    return transformers.Qwen2AudioForConditionalGeneration(config)


def voxtral_sound(generator: torch.Generator) -> Seen:
    """A sound of one chunk or two, all of whose tokens stand side by side."""
    chunks = 1 + int(torch.randint(2, (1,), generator=generator))
    spectrum = torch.randn(chunks, 16, 2 * CHUNK, generator=generator)
    return [AUDIO_START, *[AUDIO] * (chunks * CHUNK // GROUP)], {"input_features": spectrum}


def qwen2_audio_sound(generator: torch.Generator) -> Seen:
    """A sound with an even or an odd number of frames, padded to the longest there can be."""
    frames = 25 + int(torch.randint(2 * CHUNK - 24, (1,), generator=generator))
    there = (torch.arange(2 * CHUNK) < frames).long()[None]
    spectrum = torch.randn(1, 16, 2 * CHUNK, generator=generator)
    ids = [AUDIO_START, *[AUDIO] * tokens_of(frames), AUDIO_END]
    return ids, {"input_features": spectrum, "feature_attention_mask": there}
