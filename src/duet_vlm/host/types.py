"""The host's modules as the engine sees them. No object is made of these classes: they are for annotations alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Core(nn.Module):
    """The core model of a VLM, `model.base_model`: vision towers, projector and language model, without the head.

    Attributes:
        config: the model's.
        get_image_features: encodes images; the output holds (tokens, D) for each, see `Family.features`.
    """

    config: PreTrainedConfig
    get_image_features: Any


class Attention(nn.Module):
    """The attention of a decoder layer.

    Attributes:
        config: the language model's.
        layer_idx: the number of the decoder layer.
    """

    config: PreTrainedConfig
    layer_idx: int


class DecoderLayer(nn.Module):
    """A layer of the language model; a linear one has something else in the place of `self_attn`: see `linear_of`."""

    self_attn: Attention
