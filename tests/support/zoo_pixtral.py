"""Tiny models and inputs of families with a Pixtral tower: images of any size, rows that end with text; for the zoo."""

from __future__ import annotations

from typing import Any

import tiny
import torch
import transformers
from torch import Tensor
from zoo_fixed import BETWEEN, END, IMAGE, VIDEO

SIZES = [(32, 32), (24, 32), (32, 24), (16, 32)]  # (height, width) in pixels, in patches of 4


def mistral3(decoder: Any = None) -> Any:
    vision = transformers.PixtralVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=4
    )
    text = decoder or transformers.MistralConfig(**tiny.TEXT, sliding_window=None)
    config = transformers.Mistral3Config(
        vision_config=vision, text_config=text, image_token_index=IMAGE, spatial_merge_size=2, tie_word_embeddings=False
    )
    return transformers.Mistral3ForConditionalGeneration(config)


def ministral3() -> Any:
    """Queries are scaled in steps of four positions."""
    yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=16.0, original_max_position_embeddings=4,
                beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.5)  # fmt: skip
    return mistral3(transformers.Ministral3Config(**tiny.TEXT, head_dim=8, rope_parameters=yarn))


def numbered(batch: dict[str, Any]) -> dict[str, Tensor]:
    """Positions as `generate` counts them; stock alone counts the padding too, and queries are scaled by that."""
    return {"position_ids": (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)}


def image(generator: torch.Generator, side: int = 8) -> tuple[list[int], dict[str, Tensor]]:
    """Pixels padded to one size; `side` pixels make a row of visual tokens."""
    height, width = SIZES[int(torch.randint(len(SIZES), (1,), generator=generator))]
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, :height, :width] = torch.randn(1, 3, height, width, generator=generator)
    ids = [token for _ in range(height // side) for token in (*[IMAGE] * (width // side), BETWEEN)]
    return [*ids[:-1], END], {"pixel_values": pixels, "image_sizes": torch.tensor([[height, width]])}


# ---- VideoLLaMA 3: flat patches, a token each in images, four to a token in videos, a time stamp before a frame ----


def video_llama_3() -> Any:
    vision = transformers.models.video_llama_3.VideoLlama3VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, patch_size=4
    )
    config = transformers.VideoLlama3Config(
        vision_config=vision, text_config=transformers.Qwen2Config(**tiny.TEXT), image_token_id=IMAGE,
        video_token_id=VIDEO,
    )  # fmt: skip
    return transformers.VideoLlama3ForConditionalGeneration(config)


def video_llama_3_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    rows, columns = ((4, 4), (2, 6), (4, 6))[int(torch.randint(3, (1,), generator=generator))]
    pixels = torch.randn(rows * columns, 48, generator=generator)
    tensors = {"image_grid_thw": torch.tensor([[1, rows, columns]]), "image_merge_sizes": torch.tensor([1])}
    return [IMAGE] * (rows * columns), {"pixel_values": pixels, **tensors}


def video_llama_3_video(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    frames = 2 + int(torch.randint(2, (1,), generator=generator))
    pixels = torch.randn(frames * 8 * 6, 48, generator=generator)
    tensors = {"video_grid_thw": torch.tensor([[frames, 8, 6]]), "video_merge_sizes": torch.tensor([2])}
    ids = [token for number in range(frames) for token in (10 + number, *[VIDEO] * 12)]
    return ids, {"pixel_values_videos": pixels, **tensors}
