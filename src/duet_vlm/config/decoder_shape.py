"""What one decoder layer costs: floating point operations, and bytes of keys and values. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .layer_shape import LayerShape, differing
from .linear_shape import ConvolutionShape, LinearShape, linear_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder that its cost depends on.

    Attributes:
        feed_forward: parameters of the feed-forward that one token goes through; of experts, those that are chosen.
        differing: the sizes of each layer where they differ, or where some see a window; empty elsewhere.
        linear: what the linear layers of a hybrid decoder are.
    """

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    differing: tuple[LayerShape, ...] = ()
    bytes_per_value: int = 2
    linear: LinearShape | ConvolutionShape | None = None

    @classmethod
    def of(cls, config: PreTrainedConfig, bytes_per_value: int = 2) -> DecoderShape:
        """Read from a transformers config, of the whole model or of its text part."""
        text = config.get_text_config()
        heads, feed_forward = text.num_attention_heads, _feed_forward(text)
        first = getattr(text, "per_layer_config", [text])[0]  # where layers differ, the whole config has no such size
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            feed_forward=feed_forward,
            heads=heads,
            key_value_heads=getattr(first, "num_key_value_heads", None) or heads,
            head_dim=getattr(first, "head_dim", None) or text.hidden_size // heads,
            vocabulary=text.vocab_size,
            bytes_per_value=bytes_per_value,
            differing=differing(text, feed_forward),
            linear=linear_shape(text),
        )

    def is_linear(self, layer: int) -> bool:
        """Whether a decoder layer holds a state, whose size no prompt changes, instead of keys and values."""
        return self.linear is not None and layer in self.linear.layers

    def stores(self, layer: int) -> bool:
        """Whether a decoder layer has keys and values of its own."""
        return not self.is_linear(layer) and not self.layer(layer).borrows

    def layer(self, layer: int) -> LayerShape:
        """The sizes of a layer with attention."""
        if self.differing:
            return self.differing[layer]
        return LayerShape(self.head_dim, self.key_value_heads, self.key_value_heads, self.feed_forward)

    def attention_flops(self, tokens: int, layer: int = 0) -> int:
        """What grows with the square of `tokens`: scores and sums of one layer, half a square where it is causal."""
        return 0 if self.is_linear(layer) else self.layer(layer).attention(tokens, self.heads)

    def layer_flops(self, tokens: int, layer: int = 0) -> int:
        """Prefill of `tokens` through one layer: a multiply and an add each; causal attention counts half a square.

        Where a layer borrows its keys and values, nothing but the last token passes it.
        """
        if self.linear is not None and layer in self.linear.layers:
            return 2 * tokens * (self.linear.operations(self.hidden) + self.feed_forward)
        own, gated = self.layer(layer), self.linear is not None and self.linear.gated
        heads = (3 if gated else 2) * self.heads + own.key_value_heads + own.value_heads  # queries, output, gates
        projections = self.hidden * heads * own.head_dim
        passing = 1 if own.borrows else tokens
        return 2 * passing * (projections + own.feed_forward) + self.attention_flops(tokens, layer)

    def prefill_flops(self, tokens: list[int]) -> int:
        """All layers, with `tokens[i]` tokens (visual and text) in layer i, and the logits of the last token."""
        return sum(self.layer_flops(n, i) for i, n in enumerate(tokens)) + 2 * self.hidden * self.vocabulary

    def layer_kv_bytes(self, tokens: int, layer: int = 0, compressed: bool = True) -> int:
        """Keys and values of `tokens` tokens in one layer; none in a linear one, whose state is not counted.

        `compressed` says whether the cache holds a compressed prompt: a stock one leaves out what a window has passed.
        """
        if not self.stores(layer):
            return 0
        own = self.layer(layer)
        return 2 * own.key_value_heads * own.head_dim * self.bytes_per_value * own.stored(tokens, compressed)


def _feed_forward(text: Any) -> int:
    """Parameters that one token meets behind attention, averaged over layers where some have no experts.

    They are gate, up and down: of a dense layer, or of as many experts as a token is sent to, with those that every
    token passes and the router.
    """
    width, expert = getattr(text, "intermediate_size", None) or 0, getattr(text, "moe_intermediate_size", None)
    experts = getattr(text, "num_experts", None) or getattr(text, "n_routed_experts", None)
    if getattr(text, "block_auto_adjust_ff_dim", False):  # a width that is to be made two thirds as large
        width, step = int(2 * width / 3), text.block_multiple_of
        if text.block_ffn_dim_multiplier is not None:
            width = step * -(-int(text.block_ffn_dim_multiplier * width) // step)
    if hasattr(text, "intermediate_size_mlp"):  # of dense layers; a token passes one expert more than it is sent to
        sparse = 3 * (text.num_experts_per_tok + 1) * width + text.num_local_experts
        count = len(text.moe_layers)
        total = count * sparse + (text.num_hidden_layers - count) * 3 * text.intermediate_size_mlp
        average: int = round(text.hidden_size * total / text.num_hidden_layers)
        return average
    if not experts or not expert:
        return int(3 * text.hidden_size * width)
    if getattr(text, "enable_moe_block", False):  # beside the dense part
        return int(text.hidden_size * (3 * (width + text.top_k_experts * expert) + experts))
    shared = getattr(text, "shared_expert_intermediate_size", None) or 0
    shared += expert * (getattr(text, "n_shared_experts", None) or 0)
    sparse = 3 * (text.num_experts_per_tok * expert + shared) + experts
    layers, every = range(text.num_hidden_layers), getattr(text, "decoder_sparse_step", 1)
    first, named = getattr(text, "first_k_dense_replace", 0), getattr(text, "mlp_only_layers", None) or ()
    kinds = getattr(text, "mlp_layer_types", None) or [None] * len(layers)
    dense = sum(kinds[i] == "dense" or i < first or i in named or (i + 1) % every != 0 for i in layers)
    mean: int = round(text.hidden_size * (dense * 3 * width + (len(layers) - dense) * sparse) / len(layers))
    return mean
