"""Towers that see one size: images are cut into tiles of it, or made that size."""

from __future__ import annotations

from ..shape_parts import QWEN2_7B, SO400M, Shape, llama_config

_SIGLIP = {"model_type": "siglip_vision_model", **SO400M}
_COHERE2_8B = dict(
    model_type="cohere2", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, head_dim=128, logit_scale=0.25, rope_parameters={"rope_type": "default", "rope_theta": 5e4},
)  # fmt: skip
_COHERE2_111B = dict(
    model_type="cohere2", hidden_size=12288, intermediate_size=36864, num_hidden_layers=64, num_attention_heads=96,
    num_key_value_heads=8, head_dim=128, logit_scale=0.25, rope_parameters={"rope_type": "default", "rope_theta": 5e4},
)  # fmt: skip
_SIGLIP_L_384 = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=384, patch_size=16)
_DEEPSEEK_1B = llama_config(
    102400, hidden_size=2048, intermediate_size=5632, num_hidden_layers=24, num_attention_heads=16,
    num_key_value_heads=16,
)  # fmt: skip
_DEEPSEEK_7B = llama_config(
    102400, hidden_size=4096, intermediate_size=11008, num_hidden_layers=30, num_attention_heads=32,
    num_key_value_heads=32,
)  # fmt: skip
_DEEPSEEK_TOWER = {"model_type": "siglip_vision_model", "intermediate_size": 4096, **_SIGLIP_L_384}

SHAPES: dict[str, Shape] = {
    # OpenGVLab/InternVL3-8B-hf: InternViT-300M and Qwen2.5-7B
    "internvl3-8b": Shape(
        {
            "model_type": "internvl", "image_token_id": 151667, "downsample_ratio": 0.5, "tie_word_embeddings": False,
            "vision_config": dict(
                model_type="internvl_vision", hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
                num_attention_heads=16, image_size=[448, 448], patch_size=[14, 14], attention_bias=True,
            ),
            "text_config": {**QWEN2_7B, "vocab_size": 151674, "pad_token_id": 151643},
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
            "vision_config": {**_SIGLIP, "image_size": 896, "vision_use_head": False},
            "text_config": dict(
                model_type="gemma3_text", vocab_size=262208, hidden_size=2560, intermediate_size=10240,
                num_hidden_layers=34, num_attention_heads=8, num_key_value_heads=4, head_dim=256, sliding_window=1024,
            ),
        },
        {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 896, "width": 896}},
    ),
    # HuggingFaceTB/SmolVLM2-2.2B-Instruct: SigLIP so400m and SmolLM2-1.7B
    "smolvlm2": Shape(
        {
            "model_type": "smolvlm", "image_token_id": 49190, "scale_factor": 3, "pad_token_id": 2,
            "vision_config": {**SO400M, "model_type": "smolvlm_vision", "image_size": 384},
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
    # HuggingFaceM4/Idefics3-8B-Llama3: SigLIP so400m and Llama 3.1 8B
    "idefics3-8b": Shape(
        {
            "model_type": "idefics3", "image_token_id": 128257, "scale_factor": 2, "pad_token_id": 128002,
            "tie_word_embeddings": False,
            "vision_config": {**SO400M, "model_type": "idefics3_vision", "image_size": 364},
            "text_config": llama_config(
                128259, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                num_key_value_heads=8,
            ),
        },
        {
            "image_processor_type": "Idefics3ImageProcessor", "do_image_splitting": True,
            "size": {"longest_edge": 1456}, "max_image_size": {"longest_edge": 364},
        },
    ),
    # CohereLabs/aya-vision-8b
    "aya-vision-8b": Shape(
        {
            "model_type": "aya_vision", "image_token_index": 255036, "downsample_factor": 2,
            "alignment_intermediate_size": 28672, "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
            "vision_config": {**_SIGLIP, "image_size": 364, "vision_use_head": False},
            "text_config": _COHERE2_8B,
        },
        {
            "image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 364, "width": 364},
            "min_patches": 1, "max_patches": 12, "crop_to_patches": True,
        },
    ),
    # CohereLabs/command-a-vision-07-2025, which is gated: the defaults of transformers' classes, the tower that its
    # card names (SigLIP2 so400m, patches of 16 pixels, images of 512), and the text sizes of command-a-03-2025
    "command-a-vision-112b": Shape(
        {
            "model_type": "cohere2_vision", "image_token_id": 255036, "alignment_intermediate_size": 36864,
            "vision_config": {**_SIGLIP, "patch_size": 16, "image_size": 512, "vision_use_head": False},
            "text_config": _COHERE2_111B,
        },
        {"image_processor_type": "Cohere2VisionImageProcessor"},
    ),
    # AIDC-AI/Ovis2-2B as thisisiron/Ovis2-2B-hf has it: AIMv2-large and Qwen2.5-1.5B
    "ovis2-2b": Shape(
        {
            "model_type": "ovis2", "image_token_id": 151665, "vocab_size": 151936, "hidden_size": 1536,
            "visual_indicator_token_ids": [151666, 151667, 151668, 151669, 151670],
            "vision_config": dict(
                model_type="ovis2_vision", hidden_size=1024, intermediate_size=2816, num_hidden_layers=24,
                num_attention_heads=8, image_size=448, patch_size=14, vocab_size=65536, hidden_stride=2,
            ),
            "text_config": dict(
                model_type="qwen2", vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28,
                num_attention_heads=12, num_key_value_heads=2, tie_word_embeddings=True,
            ),
        },
        {
            "image_processor_type": "Ovis2ImageProcessor", "size": {"height": 448, "width": 448},
            "min_patches": 1, "max_patches": 9, "crop_to_patches": True, "use_covering_area_grid": True,
        },
    ),
    # google/paligemma-3b-pt-224, by the defaults of transformers' config: SigLIP so400m and Gemma 2B
    "paligemma-3b": Shape(
        {"model_type": "paligemma"},
        {"image_processor_type": "SiglipImageProcessor", "size": {"height": 224, "width": 224}},
    ),
    # deepseek-community/deepseek-vl-1.3b-chat, and 7b-chat, which has SAM beside SigLIP
    "deepseek-vl-1.3b": Shape(
        {
            "model_type": "deepseek_vl", "tie_word_embeddings": False, "vision_config": _DEEPSEEK_TOWER,
            "text_config": _DEEPSEEK_1B,
        },
        {"image_processor_type": "DeepseekVLImageProcessor", "size": {"height": 384, "width": 384}},
    ),
    "deepseek-vl-7b": Shape(
        {
            "model_type": "deepseek_vl_hybrid", "tie_word_embeddings": False, "vision_config": _DEEPSEEK_TOWER,
            "text_config": _DEEPSEEK_7B,
        },
        {
            "image_processor_type": "DeepseekVLHybridImageProcessor", "size": {"height": 384, "width": 384},
            "high_res_size": {"height": 1024, "width": 1024},
        },
    ),
    # deepseek-community/Janus-Pro-1B
    "janus-pro-1b": Shape(
        {
            "model_type": "janus", "tie_word_embeddings": False,
            "vision_config": {"mlp_ratio": 4, "projection_dim": 2048, "depth": 2, **_SIGLIP_L_384},
            "text_config": _DEEPSEEK_1B,
        },
        {"image_processor_type": "JanusImageProcessor", "size": {"height": 384, "width": 384}},
    ),
    # meta-llama/Llama-4-Scout-17B-16E-Instruct, the defaults of transformers' config but for the side of a tile
    "llama-4-scout": Shape(
        {"model_type": "llama4", "vision_config": {"model_type": "llama4_vision_model", "image_size": 336}},
        {"image_processor_type": "Llama4ImageProcessor"},
    ),
    # stepfun-ai/GOT-OCR-2.0-hf: SAM and Qwen-0.5B, the defaults of transformers' config
    "got-ocr-2": Shape(
        {"model_type": "got_ocr2"},
        {"image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 1024, "width": 1024}},
    ),
    # deepseek-ai/DeepSeek-OCR-2: SAM, Qwen2-0.5B that reads a page by learned queries, and a decoder of 64 experts
    "deepseek-ocr-2": Shape(
        {
            "model_type": "deepseek_ocr2",
            "vision_config": {
                "model_type": "deepseek_ocr2_vision",
                "encoder_config": dict(
                    model_type="deepseek_ocr2_encoder", hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                    num_attention_heads=14, num_key_value_heads=2,
                ),
            },
            "text_config": dict(
                model_type="deepseek_ocr2_text", vocab_size=129280, hidden_size=1280, intermediate_size=6848,
                num_hidden_layers=12, num_attention_heads=10, num_key_value_heads=10, n_routed_experts=64,
                n_shared_experts=2, num_experts_per_tok=6, moe_intermediate_size=896, n_group=1, topk_group=1,
                mlp_layer_types=["dense", *["sparse"] * 11],
            ),
        },
        {"image_processor_type": "DeepseekOcr2ImageProcessor"},
    ),
}  # fmt: skip
