"""Tiny models and inputs of MiniCPM-V 4.6 and 4.7: crops between markers, patches side by side; rows of the zoo."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from zoo_fixed import END, IMAGE, START, VIDEO
from zoo_qwen import HYBRID, QWEN_TEXT, slow

SLICE, SLICE_END, NEWLINE = 93, 92, 91
SIZES = [(16, 8), (8, 16), (16, 16), (12, 16)]  # rows and columns of patches, 4 x 4 to a visual token
PATCH = 2
ALONG = {"pixel_values": -1, "pixel_values_videos": -1}
Crop = tuple[int, int]


def minicpm(kind: str) -> Any:
    """Attention at the layers of `HYBRID`; the tower merges behind the first of its three layers."""
    vision = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=32,
        patch_size=PATCH,
    )  # fmt: skip
    text = {"model_type": "qwen3_5_text", **QWEN_TEXT, **HYBRID}
    markers = dict(
        image_start_id=START, image_end_id=END, slice_start_id=SLICE, slice_end_id=SLICE_END, newline_id=NEWLINE
    )
    config = getattr(transformers, f"{kind}Config")(
        vision_config=vision, text_config=text, insert_layer_id=0, image_size=32, image_token_id=IMAGE,
        video_token_id=VIDEO, **(markers if kind == "MiniCPMV4_7" else {}),
    )  # fmt: skip
    return slow(getattr(transformers, f"{kind}ForConditionalGeneration")(config))


def pixels(crops: list[Crop], generator: torch.Generator) -> Tensor:
    return torch.randn(1, 3, PATCH, sum(rows * columns for rows, columns in crops) * PATCH, generator=generator)


def tokens(crop: Crop) -> int:
    return crop[0] * crop[1] // 16


def image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    """One crop, or a small one and two slices above each other."""
    crop = SIZES[int(torch.randint(len(SIZES), (1,), generator=generator))]
    ids, crops = [START, *[IMAGE] * tokens(crop), END], [crop]
    if torch.rand(1, generator=generator) < 0.5:
        crops += [(8, 12)] * 2
        part = [SLICE, *[IMAGE] * tokens(crops[-1]), SLICE_END]
        ids += [*part, NEWLINE, *part]
    return ids, {"pixel_values": pixels(crops, generator), "target_sizes": torch.tensor(crops)}


def video(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    """Frames of one size, with nothing but markers between them."""
    crops = [SIZES[0]] * (2 + int(torch.randint(2, (1,), generator=generator)))
    ids = [token for crop in crops for token in (START, *[VIDEO] * tokens(crop), END)]
    return ids, {"pixel_values_videos": pixels(crops, generator), "target_sizes_videos": torch.tensor(crops)}
