"""What a training step costs in floating point operations. Plain arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config.decoder_shape import DecoderShape
from ..families.image_shape import ImageShape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def step_flops(
    config: PreTrainedConfig,
    visual_tokens: list[int],
    text_tokens: int,
    logits: int,
    tune: str,
    checkpointing: bool = False,
) -> int:
    """One row's step: tower, projector, decoder and logits, forward and backward; optimizer and adapters are left out.

    A matrix product costs as much again for the gradient of its input and as much for that of its weights, where they
    are trained; causal attention twice as much again. The frozen tower has no backward pass; the projector is trained.

    Args:
        config: a supported model's config with one size of image.
        visual_tokens: of one image in each decoder layer.
        text_tokens: of the row.
        logits: places of the row where they are computed.
        tune: "lora" (the decoder's weights are frozen) or "full".
        checkpointing: whether decoder layers are computed again in the backward pass.
    """
    shape, vision, image = DecoderShape.of(config), config.vision_config, ImageShape.of(config)
    products, again = 3 if tune == "full" else 2, int(checkpointing)
    total = 0
    for layer, visual in enumerate(visual_tokens):
        tokens = visual + text_tokens
        attention = shape.attention_flops(tokens, layer)
        total += (products + again) * (shape.layer_flops(tokens, layer) - attention) + (3 + again) * attention
    total += products * 2 * logits * shape.hidden * shape.vocabulary
    total += 3 * 2 * visual_tokens[0] * (vision.hidden_size * shape.hidden + shape.hidden**2)
    patches = image.patches + 1  # with CLS
    in_layer = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    tower = vision.num_hidden_layers * (2 * patches * in_layer + 4 * patches * patches * vision.hidden_size)
    return int(total + image.crops * tower)
