"""An image cut into any number of rectangular cells of near equal size and shape. Plain integers."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=64)
def cells(tokens: int, grid: tuple[int, int] | None, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """`count` cells of a grid of tokens: bands of rows, each cut into as many columns, or one more.

    Args:
        tokens: N, in raster order.
        grid: (rows, columns); None for a single row.
        count: 0 to N.

    Returns:
        The middle place of each cell, and the cell of each of the N places (none, when there are no cells).
    """
    if not count:
        return (), ()
    rows, columns = grid or (1, tokens)
    bands = min(max(round((count * rows / columns) ** 0.5), -(-count // columns)), rows, count)
    middles: list[int] = []
    owners = [0] * tokens
    for band in range(bands):
        top, bottom = rows * band // bands, rows * (band + 1) // bands
        here = count * (band + 1) // bands - count * band // bands
        for cell in range(here):
            left, right = columns * cell // here, columns * (cell + 1) // here
            for row in range(top, bottom):
                owners[row * columns + left : row * columns + right] = [len(middles)] * (right - left)
            middles.append((top + bottom - 1) // 2 * columns + (left + right - 1) // 2)
    return tuple(middles), tuple(owners)
