"""What one decoder layer costs: floating point operations, and bytes of keys and values. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def linear_layers(config: PreTrainedConfig) -> frozenset[int]:
    """The decoder layers of a transformers config that have linear attention."""
    text = config.get_text_config()
    kinds = (getattr(text, "layer_types", None) or ())[: text.num_hidden_layers]
    return frozenset(i for i, kind in enumerate(kinds) if kind == "linear_attention")


@dataclass(frozen=True)
class LinearShape:
    """The sizes of a linear layer (Gated DeltaNet, arXiv 2412.06464), which holds a state instead of keys and values.

    Attributes:
        layers: the decoder layers that are linear.
        key_width, value_width: of all heads together.
        value_heads: how many states there are, each of `head_dim` rows.
        head_dim: of a key.
        kernel: tokens that the convolution in front sees.
    """

    layers: frozenset[int]
    key_width: int
    value_width: int
    value_heads: int
    head_dim: int
    kernel: int

    def operations(self, hidden: int) -> int:
        """Multiplications of one token, its feed-forward excepted: projections, convolution and state.

        The state is read with the key, changed by one outer product and read with the query, which is the least that
        the delta rule takes; kernels that work on chunks do more.
        """
        mixed = 2 * self.key_width + self.value_width
        projections = hidden * (mixed + 2 * self.value_width + 2 * self.value_heads)
        return projections + self.kernel * mixed + 3 * self.head_dim * self.value_width

    @classmethod
    def of(cls, text: Any) -> LinearShape | None:
        """Read from a decoder's config; None where no layer is linear."""
        layers = linear_layers(text)
        if not layers:
            return None
        return cls(
            layers=layers,
            key_width=text.linear_num_key_heads * text.linear_key_head_dim,
            value_width=text.linear_num_value_heads * text.linear_value_head_dim,
            value_heads=text.linear_num_value_heads,
            head_dim=text.linear_key_head_dim,
            kernel=text.linear_conv_kernel_dim,
        )


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder that its cost depends on.

    Attributes:
        feed_forward: parameters of the feed-forward that one token goes through; of experts, those that are chosen.
        linear: of a hybrid decoder, whose layers with attention are gated.
    """

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    bytes_per_value: int = 2
    linear: LinearShape | None = None

    @classmethod
    def of(cls, config: PreTrainedConfig, bytes_per_value: int = 2) -> DecoderShape:
        """Read from a transformers config, of the whole model or of its text part."""
        text = config.get_text_config()
        heads = text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            feed_forward=_feed_forward(text),
            heads=heads,
            key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            vocabulary=text.vocab_size,
            bytes_per_value=bytes_per_value,
            linear=LinearShape.of(text),
        )

    def is_linear(self, layer: int) -> bool:
        """Whether a decoder layer holds a state, whose size no prompt changes, instead of keys and values."""
        return self.linear is not None and layer in self.linear.layers

    def attention_flops(self, tokens: int, layer: int = 0) -> int:
        """What grows with the square of `tokens`: scores and sums of one layer, half a square where it is causal."""
        return 0 if self.is_linear(layer) else 2 * tokens * tokens * self.heads * self.head_dim

    def layer_flops(self, tokens: int, layer: int = 0) -> int:
        """Prefill of `tokens` through one layer: a multiply and an add each; causal attention counts half a square."""
        if self.linear is not None and layer in self.linear.layers:
            return 2 * tokens * (self.linear.operations(self.hidden) + self.feed_forward)
        width = (3 if self.linear else 2) * self.heads * self.head_dim  # queries, what comes out, and gates
        projections = self.hidden * (width + 2 * self.key_value_heads * self.head_dim)
        return 2 * tokens * (projections + self.feed_forward) + self.attention_flops(tokens, layer)

    def prefill_flops(self, tokens: list[int]) -> int:
        """All layers, with `tokens[i]` tokens (visual and text) in layer i, and the logits of the last token."""
        return sum(self.layer_flops(n, i) for i, n in enumerate(tokens)) + 2 * self.hidden * self.vocabulary

    def layer_kv_bytes(self, tokens: int, layer: int = 0) -> int:
        """Keys and values of `tokens` tokens in one layer; none in a linear one, whose state is not counted."""
        if self.is_linear(layer):
            return 0
        return 2 * self.key_value_heads * self.head_dim * self.bytes_per_value * tokens


def _feed_forward(text: Any) -> int:
    """Parameters that one token meets behind attention, averaged over layers where some have no experts.

    They are gate, up and down: of a dense layer, or of as many experts as a token is sent to, with those that every
    token passes and the router.
    """
    width, expert = getattr(text, "intermediate_size", None) or 0, getattr(text, "moe_intermediate_size", None)
    experts = getattr(text, "num_experts", None) or getattr(text, "n_routed_experts", None)
    if hasattr(text, "intermediate_size_mlp"):  # of dense layers; a token passes one expert more than it is sent to
        sparse = 3 * (text.num_experts_per_tok + 1) * width + text.num_local_experts
        count = len(text.moe_layers)
        total = count * sparse + (text.num_hidden_layers - count) * 3 * text.intermediate_size_mlp
        average: int = round(text.hidden_size * total / text.num_hidden_layers)
        return average
    if not experts or not expert:
        return int(3 * text.hidden_size * width)
    shared = getattr(text, "shared_expert_intermediate_size", None) or 0
    shared += expert * (getattr(text, "n_shared_experts", None) or 0)
    sparse = 3 * (text.num_experts_per_tok * expert + shared) + experts
    layers, every = range(text.num_hidden_layers), getattr(text, "decoder_sparse_step", 1)
    first, named = getattr(text, "first_k_dense_replace", 0), getattr(text, "mlp_only_layers", None) or ()
    kinds = getattr(text, "mlp_layer_types", None) or [None] * len(layers)
    dense = sum(kinds[i] == "dense" or i < first or i in named or (i + 1) % every != 0 for i in layers)
    mean: int = round(text.hidden_size * (dense * 3 * width + (len(layers) - dense) * sparse) / len(layers))
    return mean
