"""What may be done differently by any method: options, off by default."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..tensors.greedy import greedy
from ..tensors.greedy_rules import Worth
from ..tensors.streamed import wide
from .common import Encoded, Merge, directions


def diversified(encoded: Encoded, dominant: int) -> Encoded:
    """Give images other scores, whose `dominant` highest belong to tokens that differ from each other.

    Tokens are chosen one by one: the next is the one with the largest product of its score and its distance to the
    chosen, which is 1 minus the largest cosine similarity of their features. Neighbouring patches of one salient object
    often score alike and say the same; the distance lets the second of them wait. The chosen get scores above all
    others, in the order of choice; the others keep theirs.
    """
    weight = wide(encoded.scores)
    order = greedy(Worth(distance=weight, floor=0.0), directions(encoded.features), dominant)
    top = weight.nan_to_num(posinf=0).amax(1, keepdim=True) + 1
    steps = torch.arange(dominant, device=order.device)
    return replace(encoded, scores=weight.scatter(1, order, top + dominant - steps))


def with_rest(merge: Merge) -> Merge:
    """Add one contextual token: the mean of all discarded tokens, at the place of the one with the highest score."""
    used = torch.zeros_like(merge.scores, dtype=torch.bool)
    used = used.scatter(1, merge.places, True).scatter(1, merge.members, True)
    # members are distinct, so every row discards the same number
    count = used.shape[1] - merge.places.shape[1] - merge.members.shape[1]
    order = merge.scores.argsort(dim=1, descending=True, stable=True)
    # stable twice: what is used comes last, whatever its score
    order = order.gather(1, used.gather(1, order).long().argsort(dim=1, stable=True))[:, :count]
    anchors, members = order[:, :1], order[:, 1:]
    averaged = torch.zeros_like(merge.anchors, dtype=torch.bool) if merge.averaged is None else merge.averaged
    return replace(
        merge,
        anchors=torch.cat([merge.anchors, anchors], dim=1),
        members=torch.cat([merge.members, members], dim=1),
        joins=torch.cat([merge.joins, torch.full_like(members, merge.anchors.shape[1])], dim=1),
        averaged=torch.cat([averaged, torch.ones_like(anchors, dtype=torch.bool)], dim=1),
    )


def discards(merge: Merge) -> bool:
    """Whether any token is neither retained nor merged."""
    return merge.scores.shape[1] > merge.places.shape[1] + merge.members.shape[1]
