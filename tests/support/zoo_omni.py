"""A tiny thinker of Qwen2.5-Omni; a row of the zoo."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from zoo_fixed import END, IMAGE, START, VIDEO
from zoo_qwen import Seen, omni_video

AUDIO, AUDIO_START, AUDIO_END = 94, 93, 92
FRAMES = 84  # of the longest spectrum
TIMES_PER_SECOND = 10  # of positions; a second of video and one of sound take turns in a prompt


def thinker(text: dict[str, Any]) -> Any:
    vision: dict[str, Any] = dict(
        depth=3, num_heads=4, in_channels=3, patch_size=4, spatial_merge_size=2, temporal_patch_size=2, hidden_size=32,
        intermediate_size=64, window_size=16, fullatt_block_indexes=[1], out_hidden_size=32,
    )  # fmt: skip
    audio = dict(
        num_mel_bins=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, d_model=16, n_window=8,
        output_dim=32, max_source_positions=64,
    )  # fmt: skip
    config = transformers.Qwen2_5OmniThinkerConfig(
        vision_config=vision, text_config=text, audio_config=audio, audio_token_index=AUDIO, image_token_index=IMAGE,
        video_token_index=VIDEO, vision_start_token_id=START, vision_end_token_id=END, audio_start_token_id=AUDIO_START,
        audio_end_token_id=AUDIO_END, position_id_per_seconds=TIMES_PER_SECOND, seconds_per_chunk=1,
    )  # fmt: skip
    return transformers.Qwen2_5OmniThinkerForConditionalGeneration(config)


def tokens_of(frames: int) -> int:
    """Audio tokens of a sound with so many frames of its spectrum."""
    return ((frames - 1) // 2 + 1) // 2


def sound(generator: torch.Generator, frames: int | None = None) -> Seen:
    """A sound of 21 frames or more, padded to the longest; an even or an odd number of them."""
    frames = 21 + int(torch.randint(FRAMES - 20, (1,), generator=generator)) if frames is None else frames
    there = (torch.arange(FRAMES) < frames).long()[None]
    spectrum = torch.randn(1, 16, FRAMES, generator=generator) * there[:, None]
    ids = [AUDIO_START, *[AUDIO] * tokens_of(frames), AUDIO_END]
    return ids, {"input_features": spectrum, "feature_attention_mask": there}


def video_with_sound(generator: torch.Generator) -> Seen:
    """A video and its own sound, second by second, as `use_audio_in_video` has them."""
    (video, seen), (heard, tensors) = omni_video(generator), sound(generator)
    (frames, *_), each = seen["video_grid_thw"][0].tolist(), float(seen["video_second_per_grid"])
    times = (torch.arange(frames) * each * TIMES_PER_SECOND).long().repeat_interleave((len(video) - 2) // frames)
    placed = [(time // TIMES_PER_SECOND, 0, VIDEO) for time in times.tolist()]
    placed += [(place // TIMES_PER_SECOND, 1, AUDIO) for place in range(len(heard) - 2)]
    ids = [START, AUDIO_START, *(token for *_, token in sorted(placed)), AUDIO_END, END]
    return ids, seen | tensors


def extras(batch: dict[str, Any]) -> dict[str, Any]:
    return {"use_audio_in_video": True} if "input_features" in batch else {}
