"""Tiny models and inputs of families that cut an image into tiles with text between them; rows of the zoo."""

from __future__ import annotations

from typing import Any

import tiny
import torch
import transformers
from torch import Tensor
from zoo_fixed import BETWEEN, END, IMAGE, SIGLIP, START, TILE

# ---- Aya Vision and Command A Vision: a decoder with windows shorter than a prompt, and no rotation without one ----


def aya_vision(kind: str = "AyaVision") -> Any:
    text = transformers.Cohere2Config(**tiny.TEXT, sliding_window=24, logit_scale=1.0)
    more: dict[str, Any] = {"image_token_id": IMAGE} if kind == "Cohere2Vision" else {"image_token_index": IMAGE}
    config = getattr(transformers, f"{kind}Config")(
        vision_config=transformers.SiglipVisionConfig(**SIGLIP, vision_use_head=False), text_config=text,
        downsample_factor=2, alignment_intermediate_size=64, **more,
    )  # fmt: skip
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


def aya_vision_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    tiles = 1 + int(torch.randint(2, (1,), generator=generator))
    ids = [START, *[token for _ in range(tiles) for token in (*[IMAGE] * TILE, BETWEEN)], END]
    return ids, {"pixel_values": torch.randn(tiles, 3, 32, 32, generator=generator)}


# ---- Ovis2: words of its table around and between tiles; answers hold none, as stock embeds one otherwise then ----


def ovis2() -> Any:
    vision = transformers.models.ovis2.Ovis2VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=32,
        patch_size=4, hidden_stride=2, vocab_size=48, num_visual_indicator_tokens=2,
    )  # fmt: skip
    config = transformers.Ovis2Config(
        vision_config=vision, text_config=transformers.Qwen2Config(**tiny.TEXT), image_token_id=IMAGE,
        visual_indicator_token_ids=[START, END], vocab_size=99, hidden_size=32, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.Ovis2ForConditionalGeneration(config)


def ovis2_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    tiles = 1 + int(torch.randint(2, (1,), generator=generator))
    ids = [START, *[token for _ in range(tiles) for token in (*[IMAGE] * TILE, END)]]
    return ids, {"pixel_values": torch.randn(tiles, 3, 32, 32, generator=generator)}
