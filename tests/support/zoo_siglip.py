"""Tiny models and inputs of PaddleOCR-VL and LFM2-VL, whose SigLIP towers take images of any size; rows of the zoo."""

from __future__ import annotations

from typing import Any

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
