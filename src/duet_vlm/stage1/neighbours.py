"""Sound: tokens merged with their neighbours in time, never across a window (docs/audio.md)."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import Encoded, Merge, at, directions


def merge_neighbours(encoded: Encoded, retained: int, window: int) -> Merge:
    """Retain the tokens with the highest scores; each of the others joins a neighbour, and each cluster is its mean.

    A window's best token always stays, so that no window falls silent. A token that does not stay joins the last
    retained one before it or the next one behind it, whichever has the more similar key, within its window.

    Args:
        encoded: B sounds of N tokens each, in order of time.
        retained: how many tokens stay, 1 to N.
        window: how many tokens a window has; where there are more windows than `retained`, they are made that many.
    """
    scores, n = encoded.scores, encoded.tokens
    place = torch.arange(n, device=scores.device)
    number = (place // window if -(-n // window) <= retained else place * retained // n).expand_as(scores)
    order = scores.argsort(dim=1, descending=True, stable=True)
    others_last = (~_best(order, number)).gather(1, order).long().argsort(dim=1, stable=True)
    anchors = order.gather(1, others_last)[:, :retained].sort(dim=1).values
    stays = torch.zeros_like(number).scatter(1, anchors, 1)
    members = stays.argsort(dim=1, stable=True)[:, : n - retained]
    behind = stays.cumsum(1).gather(1, members)  # the number of the retained token behind each member
    sides = torch.stack([behind - 1, behind])
    joins = sides.gather(0, _similarity(encoded, anchors, members, sides, number).argmax(0, keepdim=True))[0]
    averaged = torch.ones_like(anchors, dtype=torch.bool)
    return Merge(scores, anchors[:, :0], anchors, members, joins, averaged=averaged)


def _best(order: Tensor, number: Tensor) -> Tensor:
    """Mark the best token of every window: (B, N) bool. `order` (B, N) is by falling score."""
    by_window = order.gather(1, number.gather(1, order).argsort(dim=1, stable=True))
    starts = number.gather(1, by_window).diff(dim=1, prepend=torch.full_like(number[:, :1], -1)) != 0
    return torch.zeros_like(starts).scatter(1, by_window, starts)


def _similarity(encoded: Encoded, anchors: Tensor, members: Tensor, sides: Tensor, number: Tensor) -> Tensor:
    """Cosines (2, B, P) of members' keys to those of the retained tokens beside them, -inf out of the window."""
    direction, last, found = directions(encoded.keys), anchors.shape[1] - 1, []
    for side in sides:
        neighbour = anchors.gather(1, side.clamp(0, last))
        near = (side >= 0) & (side <= last) & (number.gather(1, neighbour) == number.gather(1, members))
        cosine = (at(direction, members) * at(direction, neighbour)).sum(-1)
        found.append(cosine.nan_to_num(nan=-1.0).masked_fill(~near, -torch.inf))
    return torch.stack(found)
