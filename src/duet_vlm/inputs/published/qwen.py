"""Qwen-VL: towers for images of any size, and three axes of positions."""

from __future__ import annotations

from ..shape_parts import SO400M_WIDTHS, Shape, qwen2_vl_processor, qwen_vl_config

_TOWER_2 = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, patch_size=14)
_TOWER_25 = dict(**_TOWER_2, window_size=112, fullatt_block_indexes=[7, 15, 23, 31], out_hidden_size=3584)
_TOWER_3 = dict(depth=27, num_heads=16, patch_size=16, num_position_embeddings=2304, **SO400M_WIDTHS)
_DEEPSTACK = dict(**_TOWER_3, deepstack_visual_indexes=[8, 16, 24])
_TEXT_7B = dict(
    vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
    num_key_value_heads=4,
)  # fmt: skip
_ROPE_2 = {"rope_theta": 1e6, "mrope_section": [16, 24, 24]}
_ROPE_3 = {"rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
_ROPE_35 = {
    "rope_theta": 1e4, "mrope_section": [11, 11, 10], "mrope_interleaved": True, "partial_rotary_factor": 0.25,
}  # fmt: skip
_GATED_DELTA = dict(
    linear_conv_kernel_dim=4, linear_key_head_dim=128, linear_value_head_dim=128, linear_num_key_heads=16,
    linear_num_value_heads=32,
)  # fmt: skip
_PROCESSOR_2 = qwen2_vl_processor(14, 3136, 12845056)
_PROCESSOR_3 = qwen2_vl_processor(16, 65536, 16777216)
_TEXT_30B_A3B = dict(
    hidden_size=2048, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, num_hidden_layers=48,
    num_attention_heads=32, num_key_value_heads=4, head_dim=128,
)  # fmt: skip

SHAPES: dict[str, Shape] = {
    # Qwen/Qwen2-VL-7B-Instruct
    "qwen2-vl-7b": Shape(
        qwen_vl_config(
            "qwen2_vl",
            dict(depth=32, embed_dim=1280, hidden_size=3584, num_heads=16, mlp_ratio=4, patch_size=14),
            _TEXT_7B, _ROPE_2,
        ),
        _PROCESSOR_2,
    ),
    # Qwen/Qwen2.5-VL-7B-Instruct
    "qwen2.5-vl-7b": Shape(qwen_vl_config("qwen2_5_vl", _TOWER_25, _TEXT_7B, _ROPE_2), _PROCESSOR_2),
    # Qwen/Qwen2.5-Omni-7B, the thinker alone: Qwen2.5-VL-7B with an audio encoder of the defaults of transformers
    "qwen2.5-omni-7b": Shape(
        {
            "model_type": "qwen2_5_omni_thinker", "image_token_index": 151655, "video_token_index": 151656,
            "audio_token_index": 151646, "tie_word_embeddings": False,
            "vision_config": {"model_type": "qwen2_5_omni_vision_encoder", "spatial_merge_size": 2, **_TOWER_25},
            "audio_config": {"model_type": "qwen2_5_omni_audio_encoder", "output_dim": 3584},
            "text_config": {
                "model_type": "qwen2_5_omni_text", "rope_parameters": {"rope_type": "default", **_ROPE_2},
                "pad_token_id": 151643, "tie_word_embeddings": False, **_TEXT_7B,
            },
        },
        _PROCESSOR_2,
    ),
    # Qwen/Qwen3-VL-8B-Instruct; the same sizes stand in pytorch/torchtitan, experiments/qwen3_vl
    "qwen3-vl-8b": Shape(
        qwen_vl_config(
            "qwen3_vl",
            dict(**_DEEPSTACK, out_hidden_size=4096),
            dict(
                vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36,
                num_attention_heads=32, num_key_value_heads=8, head_dim=128,
            ),
            _ROPE_3,
        ),
        _PROCESSOR_3,
    ),
    # Qwen/Qwen3-Omni-30B-A3B-Instruct, the thinker alone, with an audio encoder of the defaults of transformers
    "qwen3-omni-30b-a3b": Shape(
        {
            "model_type": "qwen3_omni_moe_thinker", "image_token_id": 151655, "video_token_id": 151656,
            "audio_token_id": 151675, "tie_word_embeddings": False,
            "vision_config": {"model_type": "qwen3_omni_moe_vision_encoder", "spatial_merge_size": 2, **_DEEPSTACK,
                              "out_hidden_size": 2048},
            "audio_config": {"model_type": "qwen3_omni_moe_audio_encoder", "output_dim": 2048},
            "text_config": dict(
                **_TEXT_30B_A3B, model_type="qwen3_omni_moe_text", vocab_size=152064, intermediate_size=768,
                rope_parameters={"rope_type": "default", **_ROPE_3},
            ),
        },
        _PROCESSOR_3,
    ),
    # Qwen/Qwen3-VL-30B-A3B-Instruct
    "qwen3-vl-30b-a3b": Shape(
        qwen_vl_config(
            "qwen3_vl_moe",
            dict(**_DEEPSTACK, out_hidden_size=2048),
            dict(
                **_TEXT_30B_A3B, vocab_size=151936, intermediate_size=6144, tie_word_embeddings=False,
            ),
            _ROPE_3,
        ),
        _PROCESSOR_3,
    ),
    # Qwen/Qwen3.5-9B and Qwen3.5-35B-A3B: the defaults of transformers' configs, whose docstrings name them; the tower
    # ends as wide as the decoder, and the processor is Qwen3-VL's
    "qwen3.5-9b": Shape(
        qwen_vl_config(
            "qwen3_5",
            dict(**_TOWER_3, out_hidden_size=4096),
            dict(
                vocab_size=248320, hidden_size=4096, intermediate_size=12288, num_hidden_layers=32,
                num_attention_heads=16, num_key_value_heads=4, head_dim=256, **_GATED_DELTA,
            ),
            _ROPE_35,
        ),
        _PROCESSOR_3,
    ),
    "qwen3.5-35b-a3b": Shape(
        qwen_vl_config(
            "qwen3_5_moe",
            dict(**_TOWER_3, out_hidden_size=2048),
            dict(
                vocab_size=248320, hidden_size=2048, moe_intermediate_size=512, shared_expert_intermediate_size=512,
                num_experts=256, num_experts_per_tok=8, num_hidden_layers=40, num_attention_heads=16,
                num_key_value_heads=2, head_dim=256, **_GATED_DELTA,
            ),
            _ROPE_35,
        ),
        _PROCESSOR_3,
    ),
}  # fmt: skip
