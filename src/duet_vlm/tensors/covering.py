"""How much of an image the tokens chosen so far stand for."""

from __future__ import annotations

import torch
from torch import Tensor

from .greedy_rules import Stop
from .streamed import block_size, exact

SLACK = 1e-6  # of a share, for rounding


@torch.no_grad()
def covered(direction: Tensor, order: Tensor) -> Tensor:
    """How much of an image the first 1, 2, ... K tokens in the order of choice cover.

    k tokens cover (1 / M) sum_j max(0, max_i cos_ij): i goes over the first k of them, j over all tokens of the image,
    of which M are no zeros. All of them together cover 1.

    Args:
        direction: (1, N, D) unit vectors, or zeros; what is no number counts as zeros.
        order: (1, K) long places.

    Returns:
        (K,) floating, from 0 to 1, which never falls.
    """
    x = direction[0].masked_fill(~direction[0].isfinite().all(-1, keepdim=True), 0)
    near, shares = x.new_zeros(1, len(x)), [x.new_zeros(0)]
    for part in order[0].split(max(1, block_size(x.device) // max(1, len(x)))):
        with exact(x.device):
            rows = x[part] @ x.T
        nearest = torch.cat([near, rows.clamp_(0, 1)]).cummax(0).values[1:]
        shares.append(nearest.sum(1))
        near = nearest[-1:]
    return torch.cat(shares) / x.any(-1).sum().clamp(min=1)


def enough(direction: Tensor, order: Tensor, stop: Stop) -> int:
    """Count the tokens that cover a share of an image, in the order of choice; read on the host.

    Returns:
        From `stop.least` to K; K where the share is not reached.
    """
    short = int((covered(direction, order) < stop.share - SLACK).sum())
    return max(stop.least, min(short + 1, order.shape[1]))
