"""How much of an image the tokens chosen so far stand for."""

from __future__ import annotations

import torch
from torch import Tensor

from .greedy_rules import Stop
from .streamed import block_size, exact

SLACK = 1e-6  # of a share, for rounding


@torch.no_grad()
def enough(direction: Tensor, order: Tensor, stop: Stop) -> int:
    """Count how many tokens, in the order of choice, it takes to cover a share of an image.

    k tokens cover (1 / M) sum_j max(0, max_i cos_ij): i goes over the first k of them, j over all tokens of the image,
    of which M are no zeros. All of them together cover 1. Read on the host.

    Args:
        direction: (1, N, D) unit vectors, or zeros; what is no number counts as zeros.
        order: (1, K) long places, of which at least one is needed.
        stop: the share, and the least count.

    Returns:
        From `stop.least` to K; K where the share is not reached.
    """
    x = direction[0].masked_fill(~direction[0].isfinite().all(-1, keepdim=True), 0)
    near, shares = x.new_zeros(1, len(x)), []
    for part in order[0].split(max(1, block_size(x.device) // len(x))):
        with exact(x.device):
            rows = x[part] @ x.T
        nearest = torch.cat([near, rows.clamp_(0, 1)]).cummax(0).values[1:]
        shares.append(nearest.sum(1))
        near = nearest[-1:]
    total = x.any(-1).sum().clamp(min=1)
    short = int((torch.cat(shares) / total < stop.share - SLACK).sum())
    return max(stop.least, min(short + 1, order.shape[1]))
