"""Published shapes: the sizes of a model and of its image processor, without its weights. Plain data, no download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DuetError
from .shape_parts import Shape, clip_config, crops_of, llama_config, llava_config, qwen_vl_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_CLIP_L_336 = clip_config(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
    patch_size=14, projection_dim=768,
)  # fmt: skip
_VICUNA_7B = llama_config(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
# llava-hf/llava-v1.6-vicuna-7b-hf: (height, width) of the grids
_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_SO400M = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "patch_size": 14,
}  # fmt: skip

_QWEN3_PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 16, "merge_size": 2,
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
}  # fmt: skip
_QWEN35_TOWER = dict(
    depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, patch_size=16, num_position_embeddings=2304
)
_QWEN35_ROPE = {
    "rope_theta": 1e4, "mrope_section": [11, 11, 10], "mrope_interleaved": True, "partial_rotary_factor": 0.25,
}  # fmt: skip
_GATED_DELTA = dict(
    linear_conv_kernel_dim=4, linear_key_head_dim=128, linear_value_head_dim=128, linear_num_key_heads=16,
    linear_num_value_heads=32,
)  # fmt: skip

# name -> what the checkpoint named beside it publishes on the hub
SHAPES: dict[str, Shape] = {
    # llava-hf/llava-1.5-7b-hf and llava-1.5-13b-hf; arXiv 2310.03744
    "llava-1.5-7b": Shape(
        llava_config(_CLIP_L_336, _VICUNA_7B), {"image_processor_type": "CLIPImageProcessor", **crops_of(336)}
    ),
    "llava-1.5-13b": Shape(
        llava_config(
            _CLIP_L_336,
            llama_config(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40),
        ),
        {"image_processor_type": "CLIPImageProcessor", **crops_of(336)},
    ),
    # llava-hf/llava-v1.6-vicuna-7b-hf
    "llava-next-7b": Shape(
        {**llava_config(_CLIP_L_336, _VICUNA_7B), "model_type": "llava_next", "image_grid_pinpoints": _PINPOINTS},
        {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": _PINPOINTS, **crops_of(336)},
    ),
    # Qwen/Qwen2.5-VL-7B-Instruct
    "qwen2.5-vl-7b": Shape(
        qwen_vl_config(
            "qwen2_5_vl",
            dict(
                depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, patch_size=14, window_size=112,
                fullatt_block_indexes=[7, 15, 23, 31], out_hidden_size=3584,
            ),
            dict(
                vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                num_attention_heads=28, num_key_value_heads=4,
            ),
            {"rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        ),
        {
            "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2,
            "size": {"shortest_edge": 3136, "longest_edge": 12845056},
        },
    ),
    # Qwen/Qwen3-VL-8B-Instruct; the same sizes stand in pytorch/torchtitan, experiments/qwen3_vl
    "qwen3-vl-8b": Shape(
        qwen_vl_config(
            "qwen3_vl",
            dict(
                depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, patch_size=16,
                num_position_embeddings=2304, deepstack_visual_indexes=[8, 16, 24], out_hidden_size=4096,
            ),
            dict(
                vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36,
                num_attention_heads=32, num_key_value_heads=8, head_dim=128,
            ),
            {"rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
        ),
        _QWEN3_PROCESSOR,
    ),
    # Qwen/Qwen3.5-9B and Qwen3.5-35B-A3B: the defaults of transformers' configs, whose docstrings name them; the tower
    # ends as wide as the decoder, and the processor is Qwen3-VL's
    "qwen3.5-9b": Shape(
        qwen_vl_config(
            "qwen3_5",
            dict(**_QWEN35_TOWER, out_hidden_size=4096),
            dict(
                vocab_size=248320, hidden_size=4096, intermediate_size=12288, num_hidden_layers=32,
                num_attention_heads=16, num_key_value_heads=4, head_dim=256, **_GATED_DELTA,
            ),
            _QWEN35_ROPE,
        ),
        _QWEN3_PROCESSOR,
    ),
    "qwen3.5-35b-a3b": Shape(
        qwen_vl_config(
            "qwen3_5_moe",
            dict(**_QWEN35_TOWER, out_hidden_size=2048),
            dict(
                vocab_size=248320, hidden_size=2048, moe_intermediate_size=512, shared_expert_intermediate_size=512,
                num_experts=256, num_experts_per_tok=8, num_hidden_layers=40, num_attention_heads=16,
                num_key_value_heads=2, head_dim=256, **_GATED_DELTA,
            ),
            _QWEN35_ROPE,
        ),
        _QWEN3_PROCESSOR,
    ),
    # zai-org/GLM-4.1V-9B-Thinking, by the defaults of transformers' classes for its config and image processor
    "glm-4.1v-9b": Shape(
        {
            "model_type": "glm4v", "vision_config": {"model_type": "glm4v_vision"},
            "text_config": dict(
                model_type="glm4v_text", vocab_size=151552, hidden_size=4096, intermediate_size=13696,
                num_hidden_layers=40, num_attention_heads=32, num_key_value_heads=2,
                rope_parameters={
                    "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
                    "mrope_section": [8, 12, 12],
                },
            ),
        },
        {"image_processor_type": "Glm4vImageProcessor"},
    ),
    # OpenGVLab/InternVL3-8B-hf: InternViT-300M and Qwen2.5-7B
    "internvl3-8b": Shape(
        {
            "model_type": "internvl", "image_token_id": 151667, "downsample_ratio": 0.5, "tie_word_embeddings": False,
            "vision_config": dict(
                model_type="internvl_vision", hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
                num_attention_heads=16, image_size=[448, 448], patch_size=[14, 14], attention_bias=True,
            ),
            "text_config": dict(
                model_type="qwen2", vocab_size=151674, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
                num_attention_heads=28, num_key_value_heads=4, pad_token_id=151643,
            ),
        },
        {
            "image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 448, "width": 448},
            "min_patches": 1, "max_patches": 12,
        },
    ),
    # google/gemma-3-4b-it
    "gemma-3-4b": Shape(
        {
            "model_type": "gemma3", "image_token_index": 262144, "boi_token_index": 255999, "eoi_token_index": 256000,
            "mm_tokens_per_image": 256,
            "vision_config": {
                "model_type": "siglip_vision_model", "image_size": 896, "vision_use_head": False, **_SO400M,
            },
            "text_config": dict(
                model_type="gemma3_text", vocab_size=262208, hidden_size=2560, intermediate_size=10240,
                num_hidden_layers=34, num_attention_heads=8, num_key_value_heads=4, head_dim=256, sliding_window=1024,
            ),
        },
        {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 896, "width": 896}},
    ),
    # google/gemma-4-E4B-it, without its audio tower: the last 18 layers borrow keys and values
    "gemma-4-e4b": Shape(
        {
            "model_type": "gemma4", "audio_config": None, "vision_config": {"model_type": "gemma4_vision"},
            "text_config": dict(
                model_type="gemma4_text", hidden_size=2560, intermediate_size=10240, num_hidden_layers=42,
                num_attention_heads=8, num_key_value_heads=2, num_kv_shared_layers=18,
            ),
        },
        {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 280},
    ),
    # HuggingFaceTB/SmolVLM2-2.2B-Instruct: SigLIP so400m and SmolLM2-1.7B
    "smolvlm2": Shape(
        {
            "model_type": "smolvlm", "image_token_id": 49190, "scale_factor": 3, "pad_token_id": 2,
            "vision_config": {"model_type": "smolvlm_vision", "image_size": 384, **_SO400M},
            "text_config": llama_config(
                49280, hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32,
                num_key_value_heads=32, head_dim=64,
            ),
        },
        {
            "image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": True,
            "size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384},
        },
    ),
    # no checkpoint: for trying commands out
    "tiny": Shape(
        llava_config(
            clip_config(
                hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=48,
                patch_size=4, projection_dim=16,
            ),
            llama_config(1000, hidden_size=64, intermediate_size=128, num_hidden_layers=8, num_attention_heads=4),
        ),
        {"image_processor_type": "CLIPImageProcessor", **crops_of(48)},
    ),
}  # fmt: skip


def shape_of(name: str) -> Shape:
    """A published shape by its name.

    Raises:
        DuetError: a name that is not in `SHAPES`.
    """
    if name not in SHAPES:
        raise DuetError(f"shape {name!r} is unknown: choose one of {', '.join(SHAPES)}.")
    return SHAPES[name]


def shape_config(name: str) -> PreTrainedConfig:
    """The transformers config of a published shape.

    Raises:
        DuetError: a name that is not in `SHAPES`.
    """
    fields = dict(shape_of(name).config)
    from transformers import AutoConfig

    return AutoConfig.for_model(fields.pop("model_type"), **fields)
