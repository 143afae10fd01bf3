"""HoloV: a quota for every region of the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .cells import cells
from .common import Encoded, Merge, selected

REGIONS = 16


def holov(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    """HoloV (arXiv 2510.02912): the best tokens of every region, K1 + K2 in all, kept unchanged.

    A token is good for its salience and for the variety of its surroundings: its score, plus the variance of its cosine
    similarities to the other tokens of its region, both scaled to 0 to 1 within the image. Regions share the places in
    proportion to the mean goodness of their tokens (by highest averages, so that they are neither over nor short).
    Written from the paper's idea, which leaves the cutting of regions and the sharpness of the allocation open: here 16
    rectangles and plain proportion.
    """
    owners = torch.tensor(
        cells(encoded.tokens, encoded.grid, min(REGIONS, encoded.tokens))[1], device=encoded.scores.device
    )
    together = owners[:, None] == owners
    size = together.sum(1)  # of each token's region
    good = _scaled(encoded.scores) + _scaled(_variety(encoded.features, together))
    region = (together * good[:, None]).sum(-1) / size
    better = (good[:, None] > good[..., None]) | ((good[:, None] == good[..., None]) & _earlier(encoded))
    rank = (together & better).sum(-1)  # within the region
    # highest averages: the region's r-th place goes where goodness / r is the greatest
    turn = (region / (rank + 1)).argsort(dim=1, descending=True, stable=True)
    return selected(encoded, turn[:, : dominant + contextual])


def _earlier(encoded: Encoded) -> Tensor:
    """(N, N) bool, whether the token of the column comes before that of the row."""
    return torch.ones(encoded.tokens, encoded.tokens, dtype=torch.bool, device=encoded.scores.device).tril(-1)


def _variety(features: Tensor, together: Tensor) -> Tensor:
    """(B, N) variance of each token's cosine similarities to the others of its region."""
    direction = normalize(features.float(), dim=-1)
    others = together & ~torch.eye(len(together), dtype=torch.bool, device=together.device)
    count = others.sum(-1).clamp(min=1)
    similarity = direction @ direction.transpose(1, 2)
    mean = (similarity * others).sum(-1) / count
    return ((similarity - mean[..., None]).square() * others).sum(-1) / count


def _scaled(x: Tensor) -> Tensor:
    """(B, N) to 0 to 1 within each row."""
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    return (x - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny)
