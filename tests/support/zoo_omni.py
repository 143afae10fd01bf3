"""A tiny thinker of Qwen2.5-Omni; a row of the zoo."""

from __future__ import annotations

from typing import Any

import transformers
from zoo_fixed import END, IMAGE, START, VIDEO

AUDIO, AUDIO_START, AUDIO_END = 94, 93, 92


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
        audio_end_token_id=AUDIO_END,
    )  # fmt: skip
    return transformers.Qwen2_5OmniThinkerForConditionalGeneration(config)
