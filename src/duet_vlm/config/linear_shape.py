"""The sizes of decoder layers that hold a state instead of keys and values. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

LINEAR = ("linear_attention", "conv")  # their kinds, as configs name them


def linear_layers(config: PreTrainedConfig) -> frozenset[int]:
    """The decoder layers of a transformers config that are linear."""
    text = config.get_text_config()
    kinds = (getattr(text, "layer_types", None) or ())[: text.num_hidden_layers]
    return frozenset(i for i, kind in enumerate(kinds) if kind in LINEAR)


@dataclass(frozen=True)
class LinearShape:
    """The sizes of a linear layer (Gated DeltaNet, arXiv 2412.06464), which holds a state instead of keys and values.

    Attributes:
        layers: the decoder layers that are linear.
        key_width, value_width: of all heads together.
        value_heads: how many states there are, each of `head_dim` rows.
        head_dim: of a key.
        kernel: tokens that the convolution in front sees.
        gated: whether the decoder's layers with attention have gates as wide as their queries.
    """

    gated: ClassVar[bool] = True
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
    def of(cls, text: Any) -> LinearShape:
        """Read from a decoder's config."""
        return cls(
            layers=linear_layers(text),
            key_width=text.linear_num_key_heads * text.linear_key_head_dim,
            value_width=text.linear_num_value_heads * text.linear_value_head_dim,
            value_heads=text.linear_num_value_heads,
            head_dim=text.linear_key_head_dim,
            kernel=text.linear_conv_kernel_dim,
        )


@dataclass(frozen=True)
class ConvolutionShape:
    """The sizes of a linear layer that is a short convolution between two gates (LFM2, arXiv 2511.23404).

    Attributes:
        layers: the decoder layers that are linear.
        kernel: tokens that the convolution sees, each channel by itself.
    """

    gated: ClassVar[bool] = False
    layers: frozenset[int]
    kernel: int

    def operations(self, hidden: int) -> int:
        """Multiplications of one token, its feed-forward excepted: three projections in, one out, the convolution."""
        return hidden * (4 * hidden + self.kernel)


def linear_shape(text: Any) -> LinearShape | ConvolutionShape | None:
    """Read the linear layers of a decoder's config; None where there are none."""
    layers = linear_layers(text)
    if layers and hasattr(text, "conv_L_cache"):
        return ConvolutionShape(layers, text.conv_L_cache)
    return LinearShape.of(text) if layers else None
