"""Tiny random models in folders, with real processors, as `from_pretrained` finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from duet_vlm.demo import vocabulary
from duet_vlm.demo.scenes import IMAGE_SIZE, PATCH_SIZE

LAYERS, PATCHES = 4, (IMAGE_SIZE // PATCH_SIZE) ** 2
PINPOINTS = [[IMAGE_SIZE, 2 * IMAGE_SIZE], [2 * IMAGE_SIZE, IMAGE_SIZE]]


def config(family: str = "llava") -> Any:
    """A model of the demonstration model's vocabulary and image size, and hardly any width."""
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE, projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(vocabulary.WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=LAYERS,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    common = dict(
        vision_config=vision, text_config=text, image_token_id=vocabulary.IDS[vocabulary.IMAGE],
        image_seq_length=PATCHES, vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    if family == "llava_next":
        return LlavaNextConfig(**common, image_grid_pinpoints=PINPOINTS)
    return LlavaConfig(**common)


def processor(family: str = "llava", template: bool = True) -> Any:
    made: Any = vocabulary.processor()
    if family == "llava_next":
        images = LlavaNextImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            image_grid_pinpoints=PINPOINTS, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        )  # fmt: skip
        made = LlavaNextProcessor(
            image_processor=images, tokenizer=vocabulary.tokenizer(), patch_size=PATCH_SIZE,
            image_token=vocabulary.IMAGE, vision_feature_select_strategy="default", num_additional_image_tokens=1,
            chat_template=vocabulary.CHAT_TEMPLATE,
        )  # fmt: skip
    if not template:
        made.chat_template = None
    return made


def save(folder: Path, family: str = "llava", template: bool = True) -> Path:
    """A folder with weights, configuration and processor."""
    torch.manual_seed(0)
    kind = LlavaNextForConditionalGeneration if family == "llava_next" else LlavaForConditionalGeneration
    model = kind(config(family))
    tiny.randomize(model)
    model.save_pretrained(folder)
    processor(family, template).save_pretrained(folder)
    return folder


def photo(file: Path, width: int = 200, height: int = 160) -> Path:
    """A picture with something in it."""
    x = torch.arange(width).repeat(height, 1)
    y = torch.arange(height)[:, None].repeat(1, width)
    pixels = torch.stack([x * 255 // width, y * 255 // height, (x // 20 + y // 20) % 2 * 200], dim=-1)
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(file)
    return file
