"""Decoder layers that have no keys and values of their own (Gemma 4): they attend to those of an earlier layer.

Drops stand where all layers that share keys see the same tokens (`config.drops.check_lending`). So what a lending layer
was given of mask and rotary embeddings fits the layers that borrow from it. The stock model may send the last tokens of
a prompt alone through these, as `logits_to_keep` says: then the last rows of the mask are theirs. That is let be where
the last tokens are text, of which nothing is gone.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .. import host
from ..host.types import DecoderLayer
from ..tensors.tokens import take
from .forward_pass import ARGUMENT, Decode, ForwardPass, Prefill
from .present import Present


def before_language_model(language_model: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Let all tokens pass the borrowing layers where the last ones are padding, or visual and may be gone."""
    state, last = kwargs.get(ARGUMENT), kwargs.get("logits_to_keep")
    if not isinstance(state, Prefill) or not isinstance(last, int):
        return None
    text = not state.holes_right and not bool(state.visual[:, -last:].any())
    return None if text else (args, kwargs | {"logits_to_keep": 0})


def note(layer: DecoderLayer, kwargs: dict[str, Any], state: ForwardPass | None) -> None:
    """Remember what a lending layer was given, by the type of its attention."""
    if isinstance(state, Prefill | Decode):
        state.lent[host.attention_type(layer)] = kwargs["attention_mask"], kwargs["position_embeddings"]


def before_borrowing_layer(layer: DecoderLayer, args: Any, kwargs: dict[str, Any]) -> Any:
    """Give a layer that borrows keys the mask and the rotary embeddings of the layer that lends them.

    Its hidden states (B, n, D) are those of the last n tokens that are present.
    """
    state: ForwardPass | None = kwargs.pop(ARGUMENT, None)
    if not isinstance(state, Prefill | Decode):
        return args, kwargs
    hidden = args[0].to(host.device_of(layer, args[0].device))
    mask, (cos, sin) = state.lent[host.attention_type(layer)]
    n, device = hidden.shape[1], hidden.device
    kwargs["attention_mask"] = None if mask is None else mask[..., -n:, :].to(device)
    kwargs["position_embeddings"] = cos[:, -n:].to(device), sin[:, -n:].to(device)
    kwargs["position_ids"] = None
    others = beside(args[1:], hidden, state.present) if isinstance(state, Prefill) else args[1:]
    return (hidden, *others), kwargs


def beside(inputs: tuple[Any, ...], hidden: Tensor, present: Present) -> tuple[Any, ...]:
    """Gather what a layer gets of every token beside its hidden state (per-layer embeddings), (B, q, d) each.

    Args:
        inputs: of the last q tokens of the prompt, or None.
        hidden: (B, n, D) of the last n tokens that are present.
        present: all of them.
    """
    if present.kept is None or all(one is None for one in inputs):
        return inputs
    places, length, found = present.kept[:, -hidden.shape[1] :], present.visual.shape[1], []
    for one in inputs:
        found.append(one if one is None else take(one.to(hidden.device), places - (length - one.shape[1])))
    return tuple(found)
