"""Tiny models and inputs of Gemma 4: padded patches, windows, layers that borrow keys; rows of the zoo."""

from __future__ import annotations

from typing import Any

import tiny
import torch
import transformers
from torch import Tensor
from zoo_fixed import END, IMAGE, START, VIDEO

SIDE, PATCH, BUDGET = 3, 4, 16  # patches that make a visual token, in a row; pixels; visual tokens of an image at most
GRIDS = ((4, 4), (3, 4), (2, 6), (3, 5))  # of visual tokens
IDS: dict[str, Any] = dict(
    image_token_id=IMAGE, video_token_id=VIDEO, audio_token_id=93, boi_token_id=START, eoi_token_id=END
)
# windows shorter than a prompt, heads of two sizes, values that are keys, two-way attention inside an image
ALONE: dict[str, Any] = dict(
    layer_types=[f"{kind}_attention" for kind in ("sliding", "full", "sliding", "sliding", "full")],
    attention_k_eq_v=True, num_global_key_value_heads=1, use_bidirectional_attention="vision",
)  # fmt: skip
# the last two layers use keys and values of layers 4 and 5; every layer has embeddings of its own
SHARED: dict[str, Any] = dict(
    layer_types=[f"{kind}_attention" for kind in ("sliding", "full") * 4],
    num_hidden_layers=8, num_kv_shared_layers=2, use_double_wide_mlp=True,
)  # fmt: skip
EXPERTS = dict(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=16)


def gemma4(kind: str = "alone") -> Any:
    own: dict[str, Any] = SHARED if kind == "shared" else ALONE | (EXPERTS if kind == "moe" else {})
    text = transformers.Gemma4TextConfig(**{
        **tiny.TEXT, "head_dim": 8, "global_head_dim": 16, "sliding_window": 24, "vocab_size_per_layer_input": 99,
        "hidden_size_per_layer_input": 8 if kind == "shared" else 0, **own,
    })  # fmt: skip
    vision = transformers.Gemma4VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        head_dim=8, patch_size=PATCH, pooling_kernel_size=SIDE, position_embedding_size=32,
        use_clipped_linears=kind == "shared", standardize=kind == "moe",
    )  # fmt: skip
    config = transformers.Gemma4Config(vision_config=vision, text_config=text, audio_config=None, **IDS)
    model = calmed(transformers.Gemma4ForConditionalGeneration(config))
    if kind == "moe":
        model.set_experts_implementation("eager")  # the grouped kernel takes no float64 on a CPU
        torch.nn.init.normal_(model.model.vision_tower.std_bias)
        torch.nn.init.normal_(model.model.vision_tower.std_scale)
    return model


def unified() -> Any:
    text = transformers.Gemma4UnifiedTextConfig(**tiny.TEXT, **ALONE, head_dim=8, global_head_dim=16, sliding_window=24)
    vision = transformers.Gemma4UnifiedVisionConfig(
        patch_size=PATCH, pooling_kernel_size=SIDE, mm_embed_dim=32, mm_posemb_size=32, output_proj_dims=32
    )
    config = transformers.Gemma4UnifiedConfig(vision_config=vision, text_config=text, audio_config=None, **IDS)
    return calmed(transformers.Gemma4UnifiedForConditionalGeneration(config))


def calmed(model: Any) -> Any:
    """With smaller queries: they are normed and not scaled, and sharp attention doubles what float32 rounds away."""
    for layer in model.model.language_model.layers:
        torch.nn.init.constant_(layer.self_attn.q_norm.weight, 0.5)
    return model


def patches(generator: torch.Generator, frames: int, rows: int, columns: int, spread: int) -> tuple[Tensor, Tensor]:
    """(frames, budget, values) pixels and (frames, budget, 2) positions, padded; `spread` patches in a row are one."""
    rows, columns = rows * SIDE // spread, columns * SIDE // spread
    length = BUDGET * (SIDE // spread) ** 2
    pixels = torch.zeros(frames, length, 3 * (PATCH * spread) ** 2)
    pixels[:, : rows * columns] = torch.rand(frames, rows * columns, pixels.shape[2], generator=generator)
    places = torch.full((frames, length, 2), -1)
    for number in range(rows * columns):
        places[:, number] = torch.tensor([number % columns, number // columns])
    return pixels, places


def image(generator: torch.Generator, spread: int = 1) -> tuple[list[int], dict[str, Tensor]]:
    rows, columns = GRIDS[int(torch.randint(len(GRIDS), (1,), generator=generator))]
    pixels, places = patches(generator, 1, rows, columns, spread)
    return [START, *[IMAGE] * rows * columns, END], {"pixel_values": pixels, "image_position_ids": places}


def video(generator: torch.Generator, spread: int = 1) -> tuple[list[int], dict[str, Tensor]]:
    """Two or three frames, each behind its time."""
    frames = 2 + int(torch.randint(2, (1,), generator=generator))
    pixels, places = patches(generator, frames, 2, 4, spread)
    ids = [token for number in range(frames) for token in (10 + number, START, *[VIDEO] * 8, END)]
    counts = torch.tensor([frames])
    return ids, {"pixel_values_videos": pixels, "video_position_ids": places, "num_frames_per_video": counts}


def extras(batch: dict[str, Any]) -> dict[str, Tensor]:
    ids = batch["input_ids"]
    return {"mm_token_type_ids": (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}
