"""What a decoder layer is handed of a prompt: the tokens that are kept, and what belongs to them.

A hybrid decoder has two kinds of layers. One with attention gets a mask, rotary embeddings and a cache that knows which
keys it holds. A linear one (Gated DeltaNet, a short convolution) takes the tokens as they come into one state: it needs
nothing but to know the holes of a ragged batch, which stand in front of a row, zeroed, where they leave an empty state
empty. Behind the first token they would decay it, or push tokens out of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import host
from ..errors import CacheError
from ..host.types import DecoderLayer
from . import dropping, filler, lending
from .forward_pass import Prefill
from .segments import restriction_for, stored_by


def enter(
    layer: DecoderLayer, args: tuple[Any, ...], kwargs: dict[str, Any], prompt: Prefill, watch: dropping.Watch | None
) -> tuple[Any, ...]:
    """Rank, drop, and give a layer with attention what belongs to the tokens that are kept; (B, n, D) -> (B, m, D).

    Args:
        layer: the decoder layer.
        args: (B, n, D) its input, and what it gets of every token of the prompt beside that.
        kwargs: what else it is called with, changed in place.
        prompt: changed: it goes on with what is kept.
        watch: runs each ranking, see `Engine.watching`.

    Returns:
        `args` of the tokens that are kept.
    """
    stored = stored_by(layer, kwargs)
    hidden = _compressed(layer, layer.self_attn.layer_idx, args[0], kwargs, prompt, watch)
    restriction = restriction_for(layer, hidden, kwargs, prompt, stored)
    restriction.give(kwargs, stored)
    others = lending.beside(args[1:], hidden, prompt.present)
    if any(one is not None for one in others) or layer.self_attn.layer_idx in prompt.plan.lending_layers:
        return hidden, *others  # a filler would need its own of these, and its keys are lent to nobody
    return filler.put_on(layer, hidden, kwargs, restriction), *others


def enter_linear(layer: DecoderLayer, hidden: Tensor, kwargs: dict[str, Any], prompt: Prefill) -> Tensor:
    """Drop, and tell a linear layer the holes among the tokens that are kept; (B, n, D) -> (B, m, D)."""
    hidden = _compressed(layer, host.layer_number(layer), hidden, kwargs, prompt)
    if prompt.present.kept is not None:
        kwargs["attention_mask"] = prompt.present.padding_mask
    return hidden


def _compressed(
    layer: DecoderLayer, i: int, hidden: Tensor, kwargs: dict[str, Any], prompt: Prefill,
    watch: dropping.Watch | None = None,
) -> Tensor:  # fmt: skip
    """Take the filler off, go to the layer's device, add deepstack features, rank and drop."""
    device = host.device_of(layer, hidden.device)
    hidden = filler.without(hidden, prompt.present.count).to(device)
    prompt.move(device)
    if i in prompt.deepstack:
        hidden = hidden + prompt.present.vectors(prompt.deepstack[i])
    return dropping.compress(layer, hidden, kwargs, prompt, watch)


def check_later_turn(prompt: Prefill) -> None:
    """Refuse a later turn whose rows will hold different numbers of tokens, where a linear layer has a state.

    The numbers follow from the prompt, so nothing was run yet.

    Args:
        prompt: of a hybrid decoder, behind what its cache holds.

    Raises:
        CacheError: after stage 1 or some drop rows differ.
    """
    plan, real = prompt.plan, prompt.valid & ~prompt.visual
    in_row = torch.zeros(len(real), len(prompt.limits), dtype=torch.bool, device=real.device)
    in_row = in_row.scatter(1, prompt.spans, True)
    in_row[:, 0] = False  # text
    limits = [dropping.limits_of(prompt, drop) for drop in plan.drops_by_layer.values()]
    for left in [prompt.limits, *limits] if prompt.merged_away is not None else limits:
        tokens = real.sum(1) + (in_row * left).sum(1)
        if bool((tokens != tokens[0]).any()):
            raise CacheError(
                f"rows of a later turn would keep {int(tokens.min())} to {int(tokens.max())} tokens, and the model's "
                "linear layers cannot leave out what a row has less: give such rows one at a time."
            )
