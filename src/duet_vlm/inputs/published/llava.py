"""LLaVA and its kin: CLIP or SigLIP towers, Vicuna or Qwen2 behind a projector."""

from __future__ import annotations

from ..shape_parts import QWEN2_7B, SO400M, Shape, clip_config, crops_of, llama_config, llava_config

_CLIP_L_336 = clip_config(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
    patch_size=14, projection_dim=768,
)  # fmt: skip
_VICUNA_7B = llama_config(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
# (height, width) of the grids
_NEXT = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_ONEVISION = [[height, width] for height in range(384, 2305, 384) for width in range(384, 2305, 384)]
_CLIP_336 = {"image_processor_type": "CLIPImageProcessor", **crops_of(336)}
_NEXT_336 = {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": _NEXT, **crops_of(336)}

SHAPES: dict[str, Shape] = {
    # llava-hf/llava-1.5-7b-hf and llava-1.5-13b-hf; arXiv 2310.03744
    "llava-1.5-7b": Shape(llava_config(_CLIP_L_336, _VICUNA_7B), _CLIP_336),
    "llava-1.5-13b": Shape(
        llava_config(
            _CLIP_L_336,
            llama_config(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40),
        ),
        _CLIP_336,
    ),
    # llava-hf/llava-v1.6-vicuna-7b-hf
    "llava-next-7b": Shape(
        {**llava_config(_CLIP_L_336, _VICUNA_7B), "model_type": "llava_next", "image_grid_pinpoints": _NEXT}, _NEXT_336
    ),
    # llava-hf/LLaVA-NeXT-Video-7B-hf
    "llava-next-video-7b": Shape(
        {
            **llava_config(_CLIP_L_336, _VICUNA_7B), "model_type": "llava_next_video", "image_grid_pinpoints": _NEXT,
            "video_token_index": 32000, "image_token_index": 32001,
        },
        _NEXT_336,
    ),
    # llava-hf/vip-llava-7b-hf
    "vip-llava-7b": Shape(
        {
            **llava_config(_CLIP_L_336, _VICUNA_7B), "model_type": "vipllava",
            "vision_feature_layer": [-2, -5, -8, -11, 6],
        },
        _CLIP_336,
    ),
    # LanguageBind/Video-LLaVA-7B-hf: two towers, which LanguageBind starts from CLIP-L of 224 pixels
    "video-llava-7b": Shape(
        {
            **llava_config({**_CLIP_L_336, "image_size": 224}, _VICUNA_7B), "model_type": "video_llava",
            "image_token_index": 32000, "video_token_index": 32001, "video_seq_length": 2056,
        },
        {"image_processor_type": "VideoLlavaImageProcessor", **crops_of(224)},
    ),
    # llava-hf/llava-onevision-qwen2-7b-ov-hf: SigLIP without its last layer, and Qwen2-7B
    "llava-onevision-7b": Shape(
        {
            "model_type": "llava_onevision", "image_token_index": 151646, "video_token_index": 151647,
            "image_grid_pinpoints": _ONEVISION, "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
            "vision_config": {
                "model_type": "siglip_vision_model", **SO400M, "image_size": 384, "num_hidden_layers": 26,
                "vision_use_head": False,
            },
            "text_config": QWEN2_7B,
        },
        {
            "image_processor_type": "LlavaOnevisionImageProcessor", "image_grid_pinpoints": _ONEVISION,
            "size": {"height": 384, "width": 384},
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
