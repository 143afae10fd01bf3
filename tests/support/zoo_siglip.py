"""Tiny models and inputs of families with a SigLIP tower that was not made for any other row; rows of the zoo."""

from __future__ import annotations

from typing import Any

import tiny
import torch
import transformers
from torch import Tensor
from zoo_fixed import END, IMAGE, START, VIDEO
from zoo_qwen import ATTEND, LAYERS, QWEN_TEXT

SIZES = [(8, 8), (4, 12), (12, 8), (8, 6)]  # rows and columns of patches, 2 x 2 to a visual token
VISION: dict[str, Any] = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, patch_size=4
)
PADDED = 96  # patches of the largest image, to which the others are padded


def paddleocr_vl() -> Any:
    config = transformers.PaddleOCRVLConfig(
        vision_config=VISION | {"image_size": 32, "spatial_merge_size": 2}, text_config=QWEN_TEXT | {"head_dim": 8},
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
        tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.PaddleOCRVLForConditionalGeneration(config)


def _grid(generator: torch.Generator) -> tuple[int, int]:
    return SIZES[int(torch.randint(len(SIZES), (1,), generator=generator))]


def paddleocr_vl_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    rows, columns = _grid(generator)
    patches = torch.randn(rows * columns, 3, 4, 4, generator=generator)
    ids = [START, *[IMAGE] * (rows * columns // 4), END]
    return ids, {"pixel_values": patches, "image_grid_thw": torch.tensor([[1, rows, columns]])}


# ---- LFM2-VL: padded patches, a decoder of short convolutions ----


def lfm2_vl() -> Any:
    """Attention at the layers of the zoo's other hybrid decoders."""
    text = {k: v for k, v in QWEN_TEXT.items() if k not in ("rope_parameters", "num_hidden_layers")}
    text |= dict(
        model_type="lfm2", num_hidden_layers=LAYERS, block_auto_adjust_ff_dim=False, norm_eps=1e-3,
        layer_types=["full_attention" if i in ATTEND else "conv" for i in range(LAYERS)],
    )  # fmt: skip
    config = transformers.Lfm2VlConfig(
        vision_config=VISION | {"model_type": "siglip2_vision_model", "num_patches": 64, "vision_use_head": False},
        text_config=text, image_token_id=IMAGE, projector_hidden_size=48, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.Lfm2VlForConditionalGeneration(config)


def lfm2_vl_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    rows, columns = _grid(generator)
    patches, mask = torch.zeros(1, PADDED, 48), torch.zeros(1, PADDED, dtype=torch.long)
    patches[:, : rows * columns] = torch.randn(1, rows * columns, 48, generator=generator)
    mask[:, : rows * columns] = 1
    tensors = {"spatial_shapes": torch.tensor([[rows, columns]]), "pixel_attention_mask": mask}
    return [START, *[IMAGE] * (rows * columns // 4), END], {"pixel_values": patches, **tensors}


# ---- DeepSeek-VL and Janus: images of 24 x 24 pixels, a visual token each patch ----


def deepseek_vl(kind: str = "DeepseekVL") -> Any:
    vision, more = VISION | {"image_size": 24}, {}
    if kind == "Janus":
        vision |= {"model_type": "janus_vision_model", "mlp_ratio": 2, "projection_dim": 32}
        del vision["intermediate_size"]
        more["vq_config"] = dict(
            embed_dim=4, num_embeddings=16, latent_channels=8, base_channels=32, channel_multiplier=[1, 1],
            num_res_blocks=1, projection_dim=32, image_token_embed_dim=32,
        )  # fmt: skip
    else:
        vision |= {"model_type": "siglip_vision_model", "vision_use_head": False}
    if kind == "DeepseekVLHybrid":
        more["high_res_vision_config"] = dict(
            model_type="sam_vision_model", hidden_size=16, output_channels=8, num_hidden_layers=2,
            num_attention_heads=2, image_size=48, patch_size=4, window_size=4, global_attn_indexes=[0], mlp_dim=32,
        )  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        vision_config=vision, text_config={"model_type": "llama", **tiny.TEXT}, image_token_id=IMAGE,
        tie_word_embeddings=False, **more,
    )  # fmt: skip
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


def deepseek_vl_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    return [IMAGE] * tiny.PATCHES, {"pixel_values": torch.randn(1, 3, 24, 24, generator=generator)}


def deepseek_vl_hybrid_image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    ids, tensors = deepseek_vl_image(generator)
    return ids, tensors | {"high_res_pixel_values": torch.randn(1, 3, 48, 48, generator=generator)}
