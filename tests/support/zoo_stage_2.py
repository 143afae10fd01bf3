"""Tiny models and inputs of the families that have no stage 1; rows of the zoo."""

from __future__ import annotations

from typing import Any

import tiny
import torch
import transformers
from torch import Tensor
from zoo_fixed import END, IMAGE, SIGLIP, START

# ---- Granite 4 Vision: windows of 2 x 2 patches make a token, features are added before every layer ----


def granite4_vision() -> Any:
    vision = {**SIGLIP, "hidden_size": 64, "num_attention_heads": 1, "image_size": 24}
    config = transformers.Granite4VisionConfig(
        vision_config=transformers.SiglipVisionConfig(**vision, vision_use_head=False),
        text_config=transformers.Granite4VisionTextConfig(
            **tiny.TEXT, embedding_multiplier=2.0, residual_multiplier=0.5, attention_multiplier=0.4
        ),
        image_token_index=IMAGE, vision_feature_select_strategy="full", image_grid_pinpoints=tiny.PINPOINTS,
        downsample_rate="1/2", deepstack_layer_map=[[-2, 0]], spatial_target_layers=[1, 2, 3, 4],
        tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.Granite4VisionForConditionalGeneration(config)


def granite4_vision_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    """A base crop of 3 x 3 tokens, two tiles side by side, and a token at the end of each row of theirs."""
    tensors = {"pixel_values": torch.randn(1, 3, 3, 24, 24, generator=generator)}
    return [IMAGE] * (9 + 3 * 7), tensors | {"image_sizes": torch.tensor([[24, 48]])}


# ---- GOT-OCR 2.0: one or two crops of 16 tokens in one run ----
SAM: dict[str, Any] = dict(
    hidden_size=32, output_channels=16, num_hidden_layers=2, num_attention_heads=4, patch_size=4, window_size=4,
    global_attn_indexes=[1], mlp_dim=64,
)  # fmt: skip


def got_ocr2() -> Any:
    config = transformers.GotOcr2Config(
        vision_config=transformers.models.got_ocr2.GotOcr2VisionConfig(**SAM, image_size=64),
        text_config=transformers.Qwen2Config(**tiny.TEXT), image_token_index=IMAGE, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.GotOcr2ForConditionalGeneration(config)


def got_ocr2_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    crops = 1 + int(torch.randint(2, (1,), generator=generator))
    return [START, *[IMAGE] * 16 * crops, END], {"pixel_values": torch.randn(crops, 3, 64, 64, generator=generator)}


# ---- DeepSeek-OCR 2: 144 queries of a page and of each of its crops, and one token behind ----


def deepseek_ocr2() -> Any:
    parts = transformers.models.deepseek_ocr2
    text: dict[str, Any] = dict(
        n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, n_shared_experts=1,
        mlp_layer_types=["dense", *["sparse"] * (tiny.LAYERS - 1)],
    )  # fmt: skip
    vision = parts.DeepseekOcr2VisionConfig(
        sam_config={**SAM, "image_size": 32, "downsample_channels": [24, 32]},
        encoder_config=dict(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4
        ),
    )
    config = transformers.DeepseekOcr2Config(
        vision_config=vision, text_config=parts.DeepseekOcr2TextConfig(**tiny.TEXT, **text), image_token_id=IMAGE,
    )  # fmt: skip
    model = transformers.DeepseekOcr2ForConditionalGeneration(config)
    model.set_experts_implementation("eager")  # the grouped kernel takes no float64 on a CPU
    return model


def deepseek_ocr2_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    crops = int(torch.randint(2, (1,), generator=generator))
    tensors = {
        "pixel_values": torch.randn(1, 3, 32, 32, generator=generator),
        "num_local_patches": torch.tensor([crops]),
    }
    if crops:
        tensors["pixel_values_local"] = torch.randn(crops, 3, 32, 32, generator=generator)
    return [IMAGE] * (144 * (1 + crops) + 1), tensors
