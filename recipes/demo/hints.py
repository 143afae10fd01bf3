"""Attention hints: which rows of a packed batch should look where, as losses on the decoder's attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.demo.attention import Packing
from recipes.demo.batches import PREFIX, QUESTION_TOKENS, Batch, Rows


@dataclass(frozen=True)
class Hint:
    """Which rows of a batch should look where: at these layers, with these heads (averaged).

    `among`: what the rows' masks run over: the prompt's first tokens, the image's patches or the question tokens.
    """

    name: str
    layers: tuple[int, ...]
    heads: slice
    among: str = "patches"


HINTS = (
    Hint("phrases", (0, 1), slice(4, 5), "text"),
    Hint("words", (1, 2), slice(0, 2)),
    Hint("mentions", (2, 3, 4), slice(2, 4)),
    Hint("nothing", (2, 3, 4), slice(2, 4), "prompt"),
    Hint("role0", (3, 4), slice(0, 1), "text"),
    Hint("role1", (3, 4), slice(1, 2), "text"),
    Hint("sources", (4, 5, 6), slice(2, 4)),
)
TALLY_LAYERS, TALLY_HEADS = (3, 4), slice(0, 2)  # each head alone: its share of the first token is the number


def hint_losses(batch: Batch, packing: Packing, tally: bool) -> dict[str, Tensor]:
    """-log of the attention mass that each hint's rows put where they should, averaged over rows and recorded layers.

    For the tally, the Kullback-Leibler divergence from the goal: there the shares themselves matter.
    """
    losses = {}
    for hint in HINTS:
        rows = batch.roles[int(hint.name[-1])] if hint.name.startswith("role") else getattr(batch, hint.name)
        if len(rows):
            losses[hint.name] = hint_loss(hint, rows, packing)
    rows = batch.tally
    if tally and len(rows):
        prefix = next(iter(packing.weights.values())).shape[-1] - QUESTION_TOKENS
        shares = torch.stack([packing.weights[i][:, TALLY_HEADS].float()[rows.b, :, rows.q] for i in TALLY_LAYERS])
        goal = rows.goal[None, :, None]
        away = torch.xlogy(goal, goal) - goal * torch.log(shares[..., :prefix] + 1e-6)
        losses["tally"] = away.sum(-1).mean()
    return losses


def hint_loss(hint: Hint, rows: Rows, packing: Packing) -> Tensor:
    """-log of the attention mass that the rows put where they should, averaged over them and the recorded layers."""
    there = [packing.weights[layer] for layer in hint.layers if layer in packing.weights]
    weights = torch.stack([w[:, hint.heads].float().mean(1)[rows.b, rows.q] for w in there])
    prefix = weights.shape[-1] - packing.visible.shape[-1]
    spans = {"prompt": (0, len(PREFIX)), "patches": (len(PREFIX), prefix), "text": (prefix, None)}
    return -torch.log((weights[..., slice(*spans[hint.among])] * rows.goal).sum(-1) + 1e-4).mean()
