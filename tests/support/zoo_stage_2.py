"""Tiny models and inputs of the families that have no stage 1; rows of the zoo."""

from __future__ import annotations

from typing import Any

import tiny
import torch
import transformers
from torch import Tensor
from zoo_fixed import IMAGE, SIGLIP

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
