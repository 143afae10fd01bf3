"""PixelPrune: before the encoder, a block of patches that repeats a neighbour is left out (arXiv 2604.00886).

Predictive coding, as in a lossless coder of images (LOCO-I's choice of a neighbour by the gradient above): what is
predicted well enough is not sent. A block is the square of patches that becomes one visual token. Written from the
paper's idea; which neighbour predicts, and that it is looked at as it is kept, is said here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.registry import Stage1Method

METHOD = Stage1Method(name="pixelprune", paper="2604.00886", at="pixels", order=9, budgeted=False)
ROUNDING = 1e-4  # of a threshold above 0: a whole level may come out a little larger once it was normalised


@torch.no_grad()
def pixelprune(blocks: Tensor, threshold: float, scale: Tensor) -> Tensor:
    """Tell which blocks of one image, or of one frame, are kept.

    Blocks are walked in raster order. The first is kept. A block of the first row is predicted by its left neighbour,
    one of the first column by its upper one. Any other is predicted by the left one where the upper one equals the one
    at the upper left, as nothing changes along the row above, else by the upper one. A neighbour that was left out is
    seen as the kept block that it repeats. So whoever has the kept blocks and their places can repeat the walk, and
    every block that is left out differs from a kept one by the threshold at most, also where colours run into another.

    Args:
        blocks: (rows, columns, patches, channels, values) float, the pixels of every block as the encoder gets them.
        threshold: the largest difference between two pixels at which they count as equal, in levels of 0 to 255; 0 for
            identical pixels.
        scale: (channels,) float, how many levels a difference of 1 between two pixels of a channel is.

    Returns:
        (rows, columns) bool, True where a block is kept; the first one always is.

    Example:
        >>> import torch
        >>> from duet_vlm.stage1.pixelprune import pixelprune
        >>> levels = torch.tensor([[7, 7, 9], [7, 7, 9], [5, 5, 5]])
        >>> pixelprune(levels[..., None, None, None] / 255, 0, torch.tensor([255.0])).int().tolist()
        [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
    """
    rows, columns = blocks.shape[:2]
    flat, limit = blocks.flatten(0, 1), threshold * (1 + ROUNDING)
    kept = torch.ones(rows, columns, dtype=torch.bool, device=blocks.device)
    stands_for = torch.arange(rows * columns, device=blocks.device).view(rows, columns)

    def equal(one: Tensor, other: Tensor) -> Tensor:
        """(n,) and (n,) numbers of blocks -> (n,) whether no two of their pixels are further apart than the limit."""
        return ((flat[one] - flat[other]).abs().amax((1, 3)) * scale).amax(1) <= limit

    for row, column in _diagonals(rows, columns, blocks.device):
        left = stands_for[row, (column - 1).clamp(min=0)]
        upper = stands_for[(row - 1).clamp(min=0), column]
        corner = stands_for[(row - 1).clamp(min=0), (column - 1).clamp(min=0)]
        by = torch.where((row == 0) | ((column > 0) & equal(corner, upper)), left, upper)
        repeats = equal(row * columns + column, by)
        kept[row, column] = ~repeats
        stands_for[row, column] = torch.where(repeats, by, stands_for[row, column])
    return kept


def _diagonals(rows: int, columns: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Rows and columns of the blocks behind the first, a diagonal at a time: what predicts a block lies before it."""
    found = []
    for number in range(1, rows + columns - 1):
        row = torch.arange(max(0, number - columns + 1), min(rows, number + 1), device=device)
        found.append((row, number - row))
    return found
