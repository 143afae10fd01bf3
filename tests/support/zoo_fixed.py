"""Tiny models and inputs of the families whose encoders take images, tiles or frames of one size; rows of the zoo."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import tiny
import torch
import transformers
from torch import Tensor
from transformers.models.llava_onevision import modeling_llava_onevision as onevision

IMAGE, VIDEO, START, END, BETWEEN = 98, 97, 96, 95, 94
SIGLIP: dict[str, Any] = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=4
)
TILE = 16  # visual tokens of one: 8 x 8 patches, four to a token
FRAMES = 3

# ---- Video-LLaVA: 36 patches, and CLS too in videos ----


def video_llava() -> Any:
    config = transformers.VideoLlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**tiny.VISION), text_config=transformers.LlamaConfig(**tiny.TEXT),
        image_token_index=IMAGE, video_token_index=VIDEO, image_seq_length=36, video_seq_length=37 * FRAMES,
    )  # fmt: skip
    return transformers.VideoLlavaForConditionalGeneration(config)


def video_llava_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    return [IMAGE] * 36, {"pixel_values": torch.randn(1, 3, 24, 24, generator=generator)}


def video_llava_video(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    return [VIDEO] * 37 * FRAMES, {"pixel_values_videos": torch.randn(1, FRAMES, 3, 24, 24, generator=generator)}


# ---- LLaVA-OneVision: crops of 24 x 24, 36 patches; from 3 tiles on they are shrunk ----

PINPOINTS = [[24, 24], [24, 48], [48, 24], [48, 48]]
SIZES = [(24, 48), (20, 46), (48, 48), (40, 48), (24, 24)]


def llava_onevision() -> Any:
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**{**SIGLIP, "image_size": 24}, vision_use_head=False),
        text_config=transformers.Qwen2Config(**tiny.TEXT), image_token_index=IMAGE, video_token_index=VIDEO,
        image_grid_pinpoints=PINPOINTS, vision_aspect_ratio="anyres_max_2",
    )  # fmt: skip
    return transformers.LlavaOnevisionForConditionalGeneration(config)


def onevision_tokens(size: tuple[int, int]) -> tuple[int, int]:
    """Crops and packed tokens of an image of that (height, width)."""
    crops = onevision.image_size_to_num_patches(list(size), PINPOINTS, 24)
    stock = SimpleNamespace(
        config=SimpleNamespace(
            vision_config=SimpleNamespace(image_size=24, patch_size=4), image_grid_pinpoints=PINPOINTS
        )
    )
    packed, _ = onevision.LlavaOnevisionModel.pack_image_features(
        stock, [torch.zeros(crops, 36, 1)], torch.tensor([size]), torch.zeros(1), "anyres_max_2"
    )
    return crops, len(packed[0])


def onevision_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    size = SIZES[int(torch.randint(len(SIZES), (1,), generator=generator))]
    crops, tokens = onevision_tokens(size)
    pixels = torch.zeros(1, 5, 3, 24, 24)
    pixels[0, :crops] = torch.randn(crops, 3, 24, 24, generator=generator)
    return [IMAGE] * tokens, {"pixel_values": pixels, "image_sizes": torch.tensor([size])}


def onevision_video(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    pixels = torch.randn(1, FRAMES, 3, 24, 24, generator=generator)
    return [VIDEO] * (9 * FRAMES + 1), {"pixel_values_videos": pixels}


# ---- InternVL: one to three tiles in one run ----


def internvl(normed: bool = False) -> Any:
    vision = {**SIGLIP, "image_size": [32, 32], "patch_size": [4, 4]}
    config = transformers.InternVLConfig(
        vision_config=transformers.InternVLVisionConfig(**vision, layer_scale_init_value=1.0, use_qk_norm=normed),
        text_config=transformers.Qwen2Config(**tiny.TEXT), image_token_id=IMAGE, image_seq_length=TILE,
        tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.InternVLForConditionalGeneration(config)


def internvl_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    tiles = 1 + int(torch.randint(3, (1,), generator=generator))
    return [START, *[IMAGE] * TILE * tiles, END], {"pixel_values": torch.randn(tiles, 3, 32, 32, generator=generator)}


# ---- Gemma 3: windows shorter than a prompt ----


def gemma3() -> Any:
    text = transformers.Gemma3TextConfig(
        **tiny.TEXT, head_dim=8, query_pre_attn_scalar=8, sliding_window=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip
    vision = transformers.SiglipVisionConfig(**SIGLIP, vision_use_head=False)
    config = transformers.Gemma3Config(
        vision_config=vision, text_config=text, mm_tokens_per_image=TILE, image_token_index=IMAGE,
        boi_token_index=START, eoi_token_index=END,
    )  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(config)


def gemma3_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    return [START, *[IMAGE] * TILE, END], {"pixel_values": torch.randn(1, 3, 32, 32, generator=generator)}


def gemma3_extras(batch: dict[str, Any]) -> dict[str, Tensor]:
    return {"token_type_ids": (batch["input_ids"] == IMAGE).long()}


# ---- SmolVLM and Idefics3: one or two tiles with text between them; the last one is padded at its right side ----


def smolvlm(kind: str = "SmolVLM") -> Any:
    vision = getattr(transformers, f"{kind}VisionConfig")(**SIGLIP)
    config = getattr(transformers, f"{kind}Config")(
        vision_config=vision, text_config=transformers.LlamaConfig(**tiny.TEXT), image_token_id=IMAGE, scale_factor=2
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


def smolvlm_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    tiles = 1 + int(torch.randint(2, (1,), generator=generator))
    pixels, mask = torch.zeros(1, 2, 3, 32, 32), torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    pixels[:, :tiles] = torch.randn(1, tiles, 3, 32, 32, generator=generator)
    mask[:, :tiles] = True
    mask[:, tiles - 1, :, 20:] = False
    ids = [START, *[IMAGE] * TILE, *([BETWEEN, *[IMAGE] * TILE] if tiles == 2 else []), END]
    return ids, {"pixel_values": pixels, "pixel_attention_mask": mask}


# ---- ViP-LLaVA: three layers of the tower side by side; 36 patches ----


def vipllava() -> Any:
    config = transformers.VipLlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**tiny.VISION), text_config=transformers.LlamaConfig(**tiny.TEXT),
        image_token_index=IMAGE, image_seq_length=36, vision_feature_layer=[1, -3, -2],
    )  # fmt: skip
    return transformers.VipLlavaForConditionalGeneration(config)


def vipllava_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    return [IMAGE] * 36, {"pixel_values": torch.randn(1, 3, 24, 24, generator=generator)}


# ---- LLaVA-NeXT-Video: crops as in LLaVA-NeXT, frames pooled to 9 tokens each ----


def llava_next_video(mode: str = "average") -> Any:
    config = transformers.LlavaNextVideoConfig(
        vision_config=transformers.CLIPVisionConfig(**tiny.VISION), text_config=transformers.LlamaConfig(**tiny.TEXT),
        image_token_index=IMAGE, video_token_index=VIDEO, image_grid_pinpoints=tiny.PINPOINTS, image_seq_length=36,
        video_seq_length=9 * FRAMES, spatial_pool_mode=mode,
    )  # fmt: skip
    return transformers.LlavaNextVideoForConditionalGeneration(config)


def llava_next_video_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    tensors = {"pixel_values": torch.randn(1, 3, 3, 24, 24, generator=generator)}
    return [IMAGE] * tiny.image_tokens("llava_next"), tensors | {"image_sizes": torch.tensor([[24, 48]])}


def llava_next_video_video(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    pixels = torch.randn(1, FRAMES, 3, 24, 24, generator=generator)
    return [VIDEO] * 9 * FRAMES, {"pixel_values_videos": pixels}


# ---- PaliGemma: a prompt sees itself both ways, an answer is causal ----


def paligemma(second: bool = False) -> Any:
    """The second one has a decoder with windows, which hide nothing of a prompt, and no sdpa."""
    text: Any = transformers.GemmaConfig(**tiny.TEXT, head_dim=8)
    if second:
        text = transformers.Gemma2Config(**tiny.TEXT, head_dim=8, query_pre_attn_scalar=8, sliding_window=24)
    config = transformers.PaliGemmaConfig(
        vision_config=transformers.SiglipVisionConfig(**SIGLIP, projection_dim=32, vision_use_head=False),
        text_config=text, image_token_index=IMAGE, projection_dim=32, hidden_size=32,
    )  # fmt: skip
    if second:
        config._attn_implementation = "eager"
    return transformers.PaliGemmaForConditionalGeneration(config)


def paligemma_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    return [IMAGE] * 64, {"pixel_values": torch.randn(1, 3, 32, 32, generator=generator)}


def paligemma_extras(batch: dict[str, Any]) -> dict[str, Tensor]:
    """What stood there before it was extended, if it was, is the prompt."""
    types, before = torch.zeros_like(batch["input_ids"]), batch.get("token_type_ids")
    if before is not None and before.shape[1] < types.shape[1]:
        types[:, : before.shape[1]], types[:, before.shape[1] :] = before, 1
    return {"token_type_ids": types if before is None or before.shape != types.shape else before}
