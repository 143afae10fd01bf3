"""The sizes of a layer where those of a decoder differ: in heads, windows, keys of their own. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def lending_layers(config: PreTrainedConfig) -> frozenset[int]:
    """The decoder layers of a transformers config whose keys and values later layers use instead of their own.

    These are the last layer of each type of attention before the first that has none of its own.
    """
    text = config.get_text_config()
    borrowing = getattr(text, "num_kv_shared_layers", None) or 0
    own = text.layer_types[: text.num_hidden_layers - borrowing] if borrowing else ()
    return frozenset({kind: i for i, kind in enumerate(own)}.values())


@dataclass(frozen=True)
class LayerShape:
    """The sizes of a layer with attention that its cost depends on.

    Attributes:
        head_dim: of queries, keys and values.
        key_value_heads: how many heads the keys have; 0 where the layer borrows them.
        value_heads: how many the values have; 0 where they are made of the keys' projection, or borrowed.
        feed_forward: parameters that one token meets behind attention.
        window: how many tokens back a token sees, itself included; None for all of them.
    """

    head_dim: int
    key_value_heads: int
    value_heads: int
    feed_forward: int
    window: int | None = None

    @property
    def borrows(self) -> bool:
        """Whether it attends to keys and values of an earlier layer, and stores none."""
        return self.key_value_heads == 0

    def attention(self, tokens: int, heads: int) -> int:
        """Multiplications and additions of scores and sums where each of `tokens` sees those before it, in its window.

        Where the layer borrows, nothing but the last token passes, as in a prefill of `generate`.
        """
        seen = tokens if self.window is None else min(tokens, self.window)
        pairs = 2 * seen if self.borrows else seen * seen + 2 * seen * (tokens - seen)
        return 2 * pairs * heads * self.head_dim

    def stored(self, tokens: int, compressed: bool) -> int:
        """How many of `tokens` a cache holds; one with a compressed prompt holds those behind the window, too."""
        if self.borrows:
            return 0
        return tokens if compressed or self.window is None else min(tokens, self.window - 1)


def differing(text: Any, feed_forward: int) -> tuple[LayerShape, ...]:
    """Read the layers of a decoder's config; none where all are alike and see every token.

    Args:
        text: the decoder's config.
        feed_forward: parameters that a token meets behind attention, of a layer without embeddings of its own.
    """
    kinds, layers = getattr(text, "layer_types", None) or (), text.num_hidden_layers
    configs = getattr(text, "per_layer_config", None)
    borrowing, window = getattr(text, "num_kv_shared_layers", None) or 0, getattr(text, "sliding_window", None)
    embedded = getattr(text, "hidden_size_per_layer_input", None) or 0
    sliding = [kind == "sliding_attention" and window is not None for kind in kinds[:layers]] or [False] * layers
    if not any(sliding) and not borrowing and not embedded and not getattr(text, "is_heterogeneous", False):
        return ()
    shapes = []
    for i in range(layers):
        own, borrows = text if configs is None else configs[i], i >= layers - borrowing
        heads = getattr(own, "num_key_value_heads", None) or own.num_attention_heads
        wide = borrows and getattr(text, "use_double_wide_mlp", False)
        shared = getattr(text, "attention_k_eq_v", False) and not sliding[i]
        shapes.append(
            LayerShape(
                head_dim=getattr(own, "head_dim", None) or text.hidden_size // text.num_attention_heads,
                key_value_heads=0 if borrows else heads,
                value_heads=0 if borrows or shared else heads,
                # a gate, a projection, and a share of the projection that makes the embeddings of all layers
                feed_forward=feed_forward + 3 * text.hidden_size * (text.intermediate_size * wide + embedded),
                window=window if sliding[i] else None,
            )
        )
    return tuple(shapes)
