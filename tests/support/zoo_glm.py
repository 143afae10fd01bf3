"""Tiny models and inputs of GLM-V, whose videos stand in a prompt as images between two markers; rows of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from zoo_fixed import END, IMAGE, START, VIDEO

VIDEO_START, VIDEO_END = 93, 92
SIZES = [(8, 8), (4, 12), (12, 8), (8, 6)]
# heads of 16, half of which is rotated
TEXT: dict[str, Any] = dict(
    vocab_size=99, hidden_size=64, intermediate_size=64, num_hidden_layers=5, num_attention_heads=4,
    num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=512,
    rope_parameters={
        "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2], "partial_rotary_factor": 0.5
    },
)  # fmt: skip
VISION: dict[str, Any] = dict(
    depth=3, hidden_size=32, num_heads=4, patch_size=4, image_size=32, out_hidden_size=64, intermediate_size=64,
    spatial_merge_size=2, temporal_patch_size=2,
)  # fmt: skip
EXPERTS: dict[str, Any] = dict(
    moe_intermediate_size=32, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, first_k_dense_replace=1
)
KINDS = {"glm4v": "Glm4v", "glm4v_moe": "Glm4vMoe", "glm46v": "Glm46V", "glm_ocr": "GlmOcr"}


def glm(name: str) -> Callable[[], Any]:
    kind = KINDS[name]

    def make() -> Any:
        text = TEXT | (EXPERTS if kind == "Glm4vMoe" else {"head_dim": 16} if kind == "GlmOcr" else {})
        if kind == "Glm46V":  # this config holds others' parts
            text, vision = text | {"model_type": "glm4v_text"}, VISION | {"model_type": "glm4v_vision"}
        else:
            vision = VISION
        config = getattr(transformers, f"{kind}Config")(
            text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=VIDEO,
            image_start_token_id=START, image_end_token_id=END, video_start_token_id=VIDEO_START,
            video_end_token_id=VIDEO_END,
        )  # fmt: skip
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
        if kind == "Glm4vMoe":
            model.set_experts_implementation("eager")  # the grouped kernel takes no float64 on a CPU
        return model

    return make


def _grid(generator: torch.Generator, frames: int) -> tuple[Tensor, Tensor]:
    rows, columns = SIZES[int(torch.randint(len(SIZES), (1,), generator=generator))]
    pixels = torch.randn(frames * rows * columns, 3 * 2 * 4 * 4, generator=generator)
    return pixels, torch.tensor([[frames, rows, columns]])


def image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    pixels, grid = _grid(generator, 1)
    return [START, *[IMAGE] * (int(grid.prod()) // 4), END], {"pixel_values": pixels, "image_grid_thw": grid}


def video(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    """Every frame is an image to the prompt, with its second behind it."""
    pixels, grid = _grid(generator, 2 + int(torch.randint(2, (1,), generator=generator)))
    frame = [START, *[IMAGE] * (int(grid[0, 1:].prod()) // 4), END]
    ids = [token for second in range(int(grid[0, 0])) for token in (*frame, 10 + second)]
    return [VIDEO_START, *ids, VIDEO_END], {"pixel_values_videos": pixels, "video_grid_thw": grid}


def extras(batch: dict[str, Any]) -> dict[str, Tensor]:
    """The processor's types: 1 in images, 2 in what stands between the markers of a video."""
    ids = batch["input_ids"]
    inside = (ids == VIDEO_START).cumsum(1) > (ids == VIDEO_END).cumsum(1)
    return {"mm_token_type_ids": (ids == IMAGE).long() * (1 + inside.long())}
