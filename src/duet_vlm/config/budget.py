"""What a schedule costs: visual tokens, floating point operations and KV bytes per decoder layer. Plain arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import DuetError
from .settings import Settings
from .values import as_sides

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SLACK = 1e-6  # the engine floors with the same


def keep_count(keep: float, visual_tokens: int) -> int:
    """`floor(keep * visual_tokens)`, with `SLACK` for ratios such as 0.29 that binary floats round down."""
    return math.floor(keep * visual_tokens + SLACK)


def as_grid(grid: Any) -> tuple[int, ...]:
    """The patch grid of an image as it is given: rows and columns, or frames before them, as in `image_grid_thw`.

    Raises:
        DuetError: anything but 2 or 3 whole numbers of at least 1, in a tuple, a list, a tensor or an array.
    """
    return as_sides("grid", getattr(grid, "tolist", lambda: grid)(), 3, "(rows, columns) or (frames, rows, columns)")


def stage1_counts(config: Settings, visual_tokens: int, dynamic: bool = False) -> tuple[int, int]:
    """K1 and K2 for one image of `visual_tokens`.

    Fractions round down, K2 to at least 1. Encoders of dynamic resolution clamp both, as an image may be small
    (docs/method.md, 1.8: K1 = min(K1, N - 1), K2 = min(K2, N - K1)); fixed ones refuse what the image cannot hold.

    Raises:
        ValueError: K1 + K2 is more than a fixed-resolution image has.
    """
    if config.downsample is not None:
        return config.downsample[0] * config.downsample[1], 0
    if config.dominant is None:
        return visual_tokens, 0
    dominant, contextual = config.dominant, config.contextual
    if isinstance(dominant, float):
        dominant = max(1, keep_count(dominant, visual_tokens))
    if isinstance(contextual, float):
        contextual = max(1, keep_count(contextual, visual_tokens))
    if dynamic:
        dominant = min(dominant, visual_tokens - 1) if visual_tokens > 1 else 1
        contextual = min(contextual, visual_tokens - dominant)
    elif dominant + contextual > visual_tokens:
        raise DuetError(
            f"dominant {dominant} + contextual {contextual} = {dominant + contextual} is more than the "
            f"{visual_tokens} visual tokens of an image: lower them to at most {visual_tokens} together."
        )
    return dominant, contextual


def tokens_per_layer(config: Settings, visual_tokens: int, layers: int, dynamic: bool = False) -> list[int]:
    """Visual tokens of one image that each of the `layers` decoder layers works on."""
    return after_drops(config, sum(stage1_counts(config, visual_tokens, dynamic)), layers)


def after_drops(config: Settings, entering: int, layers: int) -> list[int]:
    """Visual tokens in each layer when `entering` come out of stage 1."""
    counts = [entering] * layers
    for drop in config.drops:
        counts[drop.layer :] = [keep_count(drop.keep, entering)] * (layers - drop.layer)
    return counts


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder that its cost depends on.

    Attributes:
        intermediate: of the feed-forward parts that a token passes; of experts those it is sent to, averaged over
            layers where some have none.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    bytes_per_value: int = 2

    @classmethod
    def of(cls, config: PreTrainedConfig, bytes_per_value: int = 2) -> DecoderShape:
        """Read from a transformers config, of the whole model or of its text part."""
        text = config.get_text_config()
        heads = text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=_feed_forward_width(text),
            heads=heads,
            key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            vocabulary=text.vocab_size,
            bytes_per_value=bytes_per_value,
        )

    def layer_flops(self, tokens: int) -> int:
        """Prefill of `tokens` through one layer: a multiply and an add each; causal attention counts half a square."""
        width = self.heads * self.head_dim
        projections = self.hidden * (2 * width + 2 * self.key_value_heads * self.head_dim)
        feed_forward = 3 * self.hidden * self.intermediate
        return 2 * tokens * (projections + feed_forward) + 2 * tokens * tokens * width

    def prefill_flops(self, tokens: list[int]) -> int:
        """All layers, with `tokens[i]` tokens (visual and text) in layer i, and the logits of the last token."""
        return sum(self.layer_flops(n) for n in tokens) + 2 * self.hidden * self.vocabulary

    def layer_kv_bytes(self, tokens: int) -> int:
        """Keys and values of `tokens` tokens in one layer."""
        return 2 * self.key_value_heads * self.head_dim * self.bytes_per_value * tokens


def _feed_forward_width(text: PreTrainedConfig) -> int:
    """Width of what a token passes in a layer, on average; a router's own cost is not counted."""
    width: int = text.intermediate_size
    expert: int | None = getattr(text, "moe_intermediate_size", None)
    if expert is None:
        return width
    passed: int = expert * (text.num_experts_per_tok + (getattr(text, "n_shared_experts", None) or 0))
    layers, every = range(text.num_hidden_layers), getattr(text, "decoder_sparse_step", 1)
    first, named = getattr(text, "first_k_dense_replace", 0), getattr(text, "mlp_only_layers", None) or ()
    dense = sum(i < first or i in named or (i + 1) % every != 0 for i in layers)
    return round((dense * width + (len(layers) - dense) * passed) / len(layers))
