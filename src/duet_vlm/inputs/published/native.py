"""Towers for images of any size, and Gemma's embedder of patches, before decoders of several makers."""

from __future__ import annotations

from ..shape_parts import QWEN2_7B, SO400M, Shape

_QWEN35_08B = dict(
    model_type="qwen3_5_text", vocab_size=248320, hidden_size=1024, intermediate_size=3584, num_hidden_layers=24,
    num_attention_heads=8, num_key_value_heads=2, head_dim=256, linear_conv_kernel_dim=4, linear_key_head_dim=128,
    linear_value_head_dim=128, linear_num_key_heads=16, linear_num_value_heads=16,
)  # fmt: skip


def _minicpm(version: str, tied: bool, **markers: int) -> Shape:
    """SigLIP so400m with a merger inside, and Qwen3.5-0.8B; `markers` are ids that words do not have."""
    return Shape(
        {
            "model_type": version, "image_size": 1120, "tie_word_embeddings": tied, "image_token_id": 248300, **markers,
            "vision_config": {**SO400M, "model_type": f"{version}_vision", "image_size": 980},
            "text_config": {**_QWEN35_08B, "tie_word_embeddings": tied},
        },
        {"image_processor_type": "MiniCPMV4_6ImageProcessor"},
    )  # fmt: skip


SHAPES: dict[str, Shape] = {
    # mistralai/Mistral-Small-3.1-24B-Instruct-2503
    "mistral-small-3.1-24b": Shape(
        {
            "model_type": "mistral3", "image_token_index": 10, "spatial_merge_size": 2, "vision_feature_layer": -1,
            "multimodal_projector_bias": False, "tie_word_embeddings": False,
            "vision_config": dict(
                model_type="pixtral", hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
                num_attention_heads=16, head_dim=64, image_size=1540, patch_size=14, hidden_act="silu",
            ),
            "text_config": dict(
                model_type="mistral", vocab_size=131072, hidden_size=5120, intermediate_size=32768,
                num_hidden_layers=40, num_attention_heads=32, num_key_value_heads=8, head_dim=128, sliding_window=None,
                rope_parameters={"rope_type": "default", "rope_theta": 1e9},
            ),
        },
        {"image_processor_type": "PixtralImageProcessor", "patch_size": 14, "size": {"longest_edge": 1540}},
    ),
    # DAMO-NLP-SG/VideoLLaMA3-7B: SigLIP so400m and Qwen2.5-7B
    "videollama3-7b": Shape(
        {
            "model_type": "video_llama_3", "image_token_id": 151655, "video_token_id": 151656,
            "vision_config": {**SO400M, "model_type": "video_llama_3_vision"},
            "text_config": QWEN2_7B,
        },
        {"image_processor_type": "VideoLlama3ImageProcessor"},
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
    # google/gemma-4-12B-it: no encoder; every sixth layer has one head of keys, which are its values, too
    "gemma-4-12b": Shape(
        {
            "model_type": "gemma4_unified", "vision_config": {"model_type": "gemma4_unified_vision"},
            "audio_config": {"model_type": "gemma4_unified_audio"},
            "text_config": dict(
                model_type="gemma4_unified_text", hidden_size=3840, intermediate_size=15360, num_hidden_layers=48,
                num_attention_heads=16, num_key_value_heads=8, num_global_key_value_heads=1, attention_k_eq_v=True,
            ),
        },
        {"image_processor_type": "Gemma4UnifiedImageProcessor", "max_soft_tokens": 280},
    ),
    # openbmb/MiniCPM-V-4.6
    "minicpm-v-4.6": _minicpm("minicpmv4_6", tied=True),
    # openbmb/MiniCPM-V-4.7-1B, which has a head of its own
    "minicpm-v-4.7-1b": _minicpm(
        "minicpmv4_7", tied=False, image_start_id=248301, image_end_id=248302, slice_start_id=248303,
        slice_end_id=248304, newline_id=248305,
    ),
    # LiquidAI/LFM2-VL-1.6B: SigLIP 2 so400m and LFM2-1.2B, of whose 16 layers 6 have attention
    "lfm2-vl-1.6b": Shape(
        {
            "model_type": "lfm2_vl", "projector_hidden_size": 2560, "downsample_factor": 2,
            "vision_config": {
                **SO400M, "model_type": "siglip2_vision_model", "patch_size": 16, "num_patches": 256,
                "vision_use_head": False,
            },
            "text_config": dict(
                model_type="lfm2", vocab_size=65536, hidden_size=2048, intermediate_size=12288, num_hidden_layers=16,
                num_attention_heads=32, num_key_value_heads=8, block_multiple_of=256, block_auto_adjust_ff_dim=True,
                block_ffn_dim_multiplier=1.0,
                layer_types=["full_attention" if i in (2, 5, 8, 10, 12, 14) else "conv" for i in range(16)],
            ),
        },
        {"image_processor_type": "Lfm2VlImageProcessor"},
    ),
    # PaddlePaddle/PaddleOCR-VL: a tower as SigLIP so400m's and ERNIE 4.5 0.3B, the defaults of transformers' config
    "paddleocr-vl": Shape(
        {
            "model_type": "paddleocr_vl", "tie_word_embeddings": False,
            "text_config": {"model_type": "paddleocr_vl_text", "tie_word_embeddings": False},
        },
        {"image_processor_type": "PaddleOCRVLImageProcessor"},
    ),
}  # fmt: skip
