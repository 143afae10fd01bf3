"""Tiny Llama 4: layers that see chunks shorter than a prompt, one without rotary embeddings, experts; for the zoo."""

from __future__ import annotations

from typing import Any

import tiny
import torch
import transformers
from torch import Tensor
from zoo_fixed import BETWEEN, END, IMAGE, START, TILE

LAYERS_WITHOUT_ROTATION = (2,)  # of five


class Llama4(transformers.Llama4ForConditionalGeneration):
    """The stock class has its head under another name than the tests look for."""

    lm_head = property(lambda self: self.language_model.lm_head)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.language_model.register_forward_hook(without_images)


def without_images(language_model: Any, args: Any, output: Any) -> None:
    """The stock forward of 5.24 asks its language model's output for images, which it has none of, and fails."""
    output.image_outputs = None


def llama4(**text: Any) -> Any:
    rotated = [int(i not in LAYERS_WITHOUT_ROTATION) for i in range(tiny.LAYERS)]
    settings: dict[str, Any] = dict(
        head_dim=8, intermediate_size_mlp=64, attention_chunk_size=24, no_rope_layers=rotated, num_local_experts=4,
        interleave_moe_layer_step=2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    vision = transformers.Llama4VisionConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=4,
        vision_output_dim=48, projector_input_dim=48, projector_output_dim=48,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    config = transformers.Llama4Config(
        vision_config=vision, text_config=transformers.Llama4TextConfig(**tiny.TEXT | settings | text),
        image_token_index=IMAGE, boi_token_index=START, eoi_token_index=END,
    )  # fmt: skip
    return Llama4(config)


def image(generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
    """One or two tiles with text between them."""
    tiles = 1 + int(torch.randint(2, (1,), generator=generator))
    ids = [START, *[token for _ in range(tiles) for token in (*[IMAGE] * TILE, BETWEEN)], END]
    return ids, {"pixel_values": torch.randn(tiles, 3, 32, 32, generator=generator)}
