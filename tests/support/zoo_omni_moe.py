"""A tiny thinker of Qwen3-Omni; a row of the zoo."""

from __future__ import annotations

from typing import Any

import transformers
from zoo_fixed import END, IMAGE, START, VIDEO
from zoo_omni import AUDIO, AUDIO_END, AUDIO_START


def thinker(text: dict[str, Any]) -> Any:
    vision: dict[str, Any] = dict(
        depth=3, num_heads=4, in_channels=3, patch_size=4, spatial_merge_size=2, temporal_patch_size=2, hidden_size=32,
        intermediate_size=64, out_hidden_size=32, num_position_embeddings=64, deepstack_visual_indexes=[0, 1],
    )  # fmt: skip
    audio = dict(
        num_mel_bins=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, d_model=16,
        n_window=50, n_window_infer=100, output_dim=32, max_source_positions=64, downsample_hidden_size=8,
    )  # fmt: skip
    experts = dict(head_dim=8, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2)
    config = transformers.Qwen3OmniMoeThinkerConfig(
        vision_config=vision, text_config=text | experts, audio_config=audio, audio_token_id=AUDIO,
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
        audio_start_token_id=AUDIO_START, audio_end_token_id=AUDIO_END,
    )  # fmt: skip
    model = transformers.Qwen3OmniMoeThinkerForConditionalGeneration(config)
    model.set_experts_implementation("eager")  # the grouped kernel takes no float64 on a CPU
    return model
