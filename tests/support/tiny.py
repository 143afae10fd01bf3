"""Tiny random models of stock classes, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
)

FAMILIES = ("llava", "llava_mistral", "llava_next")
IMAGE, PAD, PATCHES, LAYERS = 98, 0, 36, 5
PADDED = ((5, 9), (2, 3, 6), (12,))  # an image, two images, text alone
VISION = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=24, patch_size=4,
    projection_dim=16,
)  # fmt: skip
TEXT = dict(
    vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
    num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=PAD, max_position_embeddings=512,
)  # fmt: skip
# AnyRes in crops of 24 x 24: a base crop and 1 x 2 or 2 x 1 tiles
PINPOINTS = [[24, 48], [48, 24]]


def build(family: str = "llava", attention: str = "sdpa", dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A model with large random weights, so that attention is far from uniform."""
    torch.manual_seed(seed)
    vision, common = CLIPVisionConfig(**VISION), dict(image_token_id=IMAGE, vision_feature_layer=-2)
    text: Any = MistralConfig(**TEXT, sliding_window=None) if family == "llava_mistral" else LlamaConfig(**TEXT)
    if family == "llava_next":
        config: Any = LlavaNextConfig(
            vision_config=vision, text_config=text, image_grid_pinpoints=PINPOINTS, image_seq_length=PATCHES, **common
        )
        model: Any = LlavaNextForConditionalGeneration(config)
    else:
        config = LlavaConfig(vision_config=vision, text_config=text, image_seq_length=PATCHES, **common)
        model = LlavaForConditionalGeneration(config)
    model = model.to(dtype).eval()
    model.set_attn_implementation(attention)
    randomize(model, torch.Generator().manual_seed(seed))
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = None
    return model


@torch.no_grad()
def randomize(model: Any, generator: torch.Generator | None = None) -> None:
    """Large random weights, so that attention is far from uniform."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.15, generator=generator)


def image_tokens(family: str, size: tuple[int, int] = (24, 48)) -> int:
    """Placeholders of one image; for AnyRes of an image of that (height, width), which fills its two tiles exactly."""
    if family != "llava_next":
        return PATCHES
    height, width = size[0] // 4, size[1] // 4
    return PATCHES + height * (width + 1)


def inputs(
    family: str = "llava",
    rows: tuple[tuple[int, ...], ...] = ((5, 9),),
    padding: str = "left",
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
    size: tuple[int, int] = (24, 48),
) -> dict[str, Any]:
    """Rows of text lengths around images: (5, 9) is 5 words, an image, 9 words; (7,) is text alone."""
    generator = torch.Generator().manual_seed(seed)
    sequences, images = [], 0
    for lengths in rows:
        parts = [torch.randint(3, 90, (lengths[0],), generator=generator)]
        for length in lengths[1:]:
            parts.append(torch.full((image_tokens(family, size),), IMAGE))
            parts.append(torch.randint(3, 90, (length,), generator=generator))
            images += 1
        sequences.append(torch.cat(parts))
    batch = stack(sequences, padding)
    if not images:
        return batch
    if family == "llava_next":
        batch["pixel_values"] = torch.randn(images, 3, 3, 24, 24, generator=generator).to(dtype)
        batch["image_sizes"] = torch.tensor([size] * images)
    else:
        batch["pixel_values"] = torch.randn(images, 3, 24, 24, generator=generator).to(dtype)
    return batch


def stack(sequences: list[torch.Tensor], padding: str) -> dict[str, Any]:
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), PAD)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        place = slice(longest - len(sequence), None) if padding == "left" else slice(0, len(sequence))
        ids[row, place], mask[row, place] = sequence, 1
    return {"input_ids": ids, "attention_mask": mask}


def extended(batch: dict[str, Any], tokens: torch.Tensor) -> dict[str, Any]:
    """The batch with more text behind it."""
    ids = torch.cat([batch["input_ids"], tokens], 1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(tokens)], 1)
    return {**batch, "input_ids": ids, "attention_mask": mask}


def single(batch: dict[str, Any], row: int) -> dict[str, Any]:
    """One row of a batch without its padding, with its own images."""
    real = batch["attention_mask"][row].bool()
    ids = batch["input_ids"][row, real][None]
    out = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    starts = (batch["input_ids"] == IMAGE).int().diff(dim=1, prepend=torch.zeros(len(batch["input_ids"]), 1).int()) == 1
    counts = starts.sum(1).tolist()
    if counts[row]:
        pick = slice(sum(counts[:row]), sum(counts[: row + 1]))
        out["pixel_values"] = batch["pixel_values"][pick]
        if "image_sizes" in batch:
            out["image_sizes"] = batch["image_sizes"][pick]
    return out


class Words:
    """A tokenizer of one word per id: ids divisible by three are nouns, the others stop words."""

    all_special_ids = (PAD, 1, 2)

    def decode(self, ids: Any, **_: Any) -> str:
        ids = [ids] if isinstance(ids, int) else list(ids)
        return "".join(" cat" if i % 3 == 0 and i != IMAGE else " the" for i in ids)
