"""Published shapes: a model's config without its weights."""

from __future__ import annotations

from typing import Any

from ..errors import DuetError

_CLIP_L_336 = dict(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
    patch_size=14, projection_dim=768,
)  # fmt: skip
# name -> (vision tower, decoder); LLaVA-1.5 as in arXiv 2310.03744 and its converted checkpoints
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llava-1.5-7b": (
        _CLIP_L_336,
        dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32064),
    ),
    "llava-1.5-13b": (
        _CLIP_L_336,
        dict(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40, vocab_size=32064),
    ),
    "tiny": (
        dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=48,
            patch_size=4,
            projection_dim=16,
        ),
        dict(hidden_size=64, intermediate_size=128, num_hidden_layers=8, num_attention_heads=4, vocab_size=1000),
    ),
}


def shape_config(name: str) -> Any:
    """The transformers config of a published shape.

    Raises:
        ValueError: a name that is not in `SHAPES`.
    """
    if name not in SHAPES:
        raise DuetError(f"shape {name!r} is unknown: choose one of {', '.join(SHAPES)}.")
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision, text = SHAPES[name]
    tower = CLIPVisionConfig(**vision, hidden_act="quick_gelu")
    decoder = LlamaConfig(**text, max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return LlavaConfig(
        vision_config=tower,
        text_config=decoder,
        image_token_index=text["vocab_size"] - 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(vision["image_size"] // vision["patch_size"]) ** 2,
    )
