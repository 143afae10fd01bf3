"""HoloV: a quota for every region of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.registry import Stage1Method
from .cells import cells
from .common import Encoded, Merge, cosines, directions, scaled, selected

REGIONS = 16


METHOD = Stage1Method(name="holov", paper="2510.02912", needs=("scores", "features", "grid"), discards=True, order=7)


def holov(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """HoloV (arXiv 2510.02912): the best tokens of every region, K1 + K2 in all, kept unchanged.

    A token is good for its salience and for the variety of its surroundings: its score, plus the variance of its cosine
    similarities to the other tokens of its region, both scaled to 0 to 1 within the image. Regions share the places in
    proportion to the mean goodness of their tokens (by highest averages, so that they are neither over nor short).
    Written from the paper's idea, which leaves the cutting of regions and the sharpness of the allocation open: here 16
    rectangles and plain proportion.
    """
    owners = cells(encoded.tokens, encoded.grid, min(REGIONS, encoded.tokens))[1]
    device, salience, direction = encoded.scores.device, scaled(encoded.scores), directions(encoded.features)
    regions = [
        torch.tensor([place for place, owner in enumerate(owners) if owner == region], device=device)
        for region in range(max(owners) + 1)
    ]
    variety = torch.zeros_like(salience)
    for region in regions:
        variety[:, region] = _variety(direction[:, region])
    good = salience + scaled(variety)
    turn = torch.zeros_like(good)
    for region in regions:
        here = good[:, region]
        order = here.argsort(dim=1, descending=True, stable=True)
        # highest averages: the region's r-th place goes where goodness / r is the greatest
        average = here.mean(1, keepdim=True) / torch.arange(1, len(region) + 1, device=device)
        turn[:, region] = torch.zeros_like(here).scatter(1, order, average)
    order = turn.argsort(dim=1, descending=True, stable=True)
    return selected(encoded, order[:, : dominant + contextual])


def _variety(direction: Tensor) -> Tensor:
    """Compute the variance of the cosine similarities of each of a region's tokens to the others: (B, n)."""
    similarity = cosines(direction, direction)
    itself = torch.eye(similarity.shape[1], dtype=torch.bool, device=direction.device)
    count = max(1, similarity.shape[1] - 1)
    mean = similarity.masked_fill(itself, 0).sum(-1, keepdim=True) / count
    return (similarity - mean).square_().masked_fill_(itself, 0).sum(-1) / count
