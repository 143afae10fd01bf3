"""Tiny models and inputs of Qwen's families and of the thinker of Qwen2.5-Omni; rows of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from zoo_fixed import END, IMAGE, START, VIDEO

LAYERS = 5
Seen = tuple[list[int], dict[str, Tensor]]

QWEN_TEXT: dict[str, Any] = dict(
    vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
    num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=512,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
)  # fmt: skip
QWEN35, ATTEND = ("qwen3_5", "qwen3_5_moe"), (0, 3)
HYBRIDS = (*QWEN35, "minicpmv4_6", "minicpmv4_7", "lfm2_vl")
# attention at layer 0, so that every setting of the matrix can be ranked; linear layers side by side and at the end
HYBRID: dict[str, Any] = dict(
    layer_types=["full_attention" if i in ATTEND else "linear_attention" for i in range(LAYERS)], head_dim=16,
    linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1],
                     "mrope_interleaved": True, "partial_rotary_factor": 0.5},
    rms_norm_eps=1e-3,
)  # fmt: skip
EXPERTS = dict(moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4, num_experts_per_tok=2)
QWEN_IDS: dict[str, Any] = dict(
    image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END
)


def qwen(kind: str) -> Callable[[], Any]:
    vision: dict[str, Any] = dict(depth=3, num_heads=4, in_channels=3, patch_size=4, spatial_merge_size=2,
                                  temporal_patch_size=2)  # fmt: skip
    text = dict(QWEN_TEXT)
    if kind == "Qwen2_5_VL":
        vision |= dict(hidden_size=32, intermediate_size=64, window_size=16, fullatt_block_indexes=[1],
                       out_hidden_size=32)  # fmt: skip
    elif kind.startswith("Qwen3_5"):
        vision |= dict(hidden_size=32, intermediate_size=64, out_hidden_size=32, num_position_embeddings=64)
        text |= HYBRID | (EXPERTS if kind == "Qwen3_5Moe" else {})
    elif kind == "Qwen2VL":
        vision |= dict(embed_dim=32, hidden_size=32, mlp_ratio=2)
    else:
        vision |= dict(hidden_size=32, intermediate_size=64, out_hidden_size=32, num_position_embeddings=64,
                       deepstack_visual_indexes=[0, 1])  # fmt: skip
        text |= dict(head_dim=8)
    if kind == "Qwen3VLMoe":
        text |= dict(moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2)

    def make() -> Any:
        config = getattr(transformers, f"{kind}Config")(vision_config=vision, text_config=text, **QWEN_IDS)
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
        if kind == "Qwen3VLMoe":
            model.set_experts_implementation("eager")  # the grouped kernel takes no float64 on a CPU
        return slow(model)

    return make


def slow(model: Any) -> Any:
    """The model with slow decay: a state remembers the whole prompt, so what should not be in it shows."""
    for state in (module for module in model.modules() if hasattr(module, "A_log")):
        state.A_log.data = torch.linspace(0.02, 0.3, len(state.A_log)).log()
    return model


def _grid(generator: torch.Generator, frames: int) -> tuple[Tensor, Tensor]:
    sizes = [(8, 8), (4, 12), (12, 8), (8, 6)]
    rows, columns = sizes[int(torch.randint(len(sizes), (1,), generator=generator))]
    pixels = torch.randn(frames * rows * columns, 3 * 2 * 4 * 4, generator=generator)
    return pixels, torch.tensor([[frames, rows, columns]])


def image(generator: torch.Generator) -> Seen:
    pixels, grid = _grid(generator, 1)
    ids = [START, *[IMAGE] * (int(grid.prod()) // 4), END]
    return ids, {"pixel_values": pixels, "image_grid_thw": grid}


def video(generator: torch.Generator) -> Seen:
    pixels, grid = _grid(generator, 2 + int(torch.randint(2, (1,), generator=generator)))
    ids = [START, *[VIDEO] * (int(grid.prod()) // 4), END]
    return ids, {"pixel_values_videos": pixels, "video_grid_thw": grid}


def video_with_times(generator: torch.Generator) -> Seen:
    # its processor writes a time stamp in front of every frame
    pixels, grid = _grid(generator, 2 + int(torch.randint(2, (1,), generator=generator)))
    frame = int(grid[0, 1:].prod()) // 4
    ids = [token for number in range(int(grid[0, 0])) for token in (10 + number, START, *[VIDEO] * frame, END)]
    return ids, {"pixel_values_videos": pixels, "video_grid_thw": grid}


def extras(batch: dict[str, Any]) -> dict[str, Tensor]:
    ids = batch["input_ids"]
    return {"mm_token_type_ids": (ids == IMAGE).long() + 2 * (ids == VIDEO).long()}


def omni_video(generator: torch.Generator) -> Seen:
    ids, tensors = video(generator)
    return ids, tensors | {"video_second_per_grid": torch.tensor([0.5])}
