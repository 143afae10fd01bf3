"""What published shapes are put together from: a shape, and parts of configs that several checkpoints share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Fields = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What a published checkpoint's config.json and preprocessor_config.json say of sizes.

    Attributes:
        config: of config.json, with its `model_type`.
        processor: of preprocessor_config.json, with its `image_processor_type`.
    """

    config: Fields
    processor: Fields = field(default_factory=dict)


SO400M_WIDTHS: Fields = {"hidden_size": 1152, "intermediate_size": 4304}
SO400M: Fields = {**SO400M_WIDTHS, "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 14}
QWEN2_7B: Fields = {  # and Qwen2.5's
    "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
}  # fmt: skip


def clip_config(**sizes: Any) -> Fields:
    return {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", **sizes}


def llama_config(vocab_size: int = 32064, **sizes: Any) -> Fields:
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return {"model_type": "llama", "vocab_size": vocab_size, "max_position_embeddings": 4096, **ends, **sizes}


def llava_config(vision: Fields, text: Fields) -> Fields:
    return {
        "model_type": "llava", "vision_config": vision, "text_config": text,
        "image_token_index": text["vocab_size"] - 1, "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "image_seq_length": (vision["image_size"] // vision["patch_size"]) ** 2,
    }  # fmt: skip


def qwen_vl_config(kind: str, vision: Fields, text: Fields, mrope: Fields) -> Fields:
    rope = {"rope_type": "default", **mrope}
    return {
        "model_type": kind, "vision_config": {"model_type": f"{kind}_vision", "spatial_merge_size": 2, **vision},
        "text_config": {"model_type": f"{kind}_text", "rope_parameters": rope, "pad_token_id": 151643, **text},
        "image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
    }  # fmt: skip


def glm_config(
    kind: str, vision: Fields, text: Fields, part: str | None = None, sections: Sequence[int] = (8, 12, 12),
    rotated: float = 0.5,
) -> Fields:  # fmt: skip
    rope = {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": rotated,
        "mrope_section": list(sections),
    }  # fmt: skip
    return {
        "model_type": kind, "vision_config": {"model_type": f"{part or kind}_vision", **vision},
        "text_config": {"model_type": f"{part or kind}_text", "rope_parameters": rope, **text},
    }  # fmt: skip


def qwen2_vl_processor(patch: int, smallest: int, largest: int) -> Fields:
    return {
        "image_processor_type": "Qwen2VLImageProcessor", "patch_size": patch, "merge_size": 2,
        "size": {"shortest_edge": smallest, "longest_edge": largest},
    }  # fmt: skip


def crops_of(side: int) -> Fields:
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
