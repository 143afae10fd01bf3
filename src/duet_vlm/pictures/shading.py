"""What became of patches, as colours over an image that look like nothing in it, whether it is light or dark."""

from __future__ import annotations

import colorsys

import numpy as np

from ..engine.trace import ImageTrace

Color = tuple[float, float, float]

# what left the language model's input earlier, what leaves it here, what was merged: as in the legend
GONE, DROPPED, MERGED = (0.28, 0.29, 0.32), (0.66, 0.19, 0.27), (0.87, 0.53, 0.16)
REST = 0.25  # how much of the image's contrast is left under these colours
MEMBER = 0.5  # tint of a cluster's member
STRIPE, DEEP = 8, 0.045  # width in pixels, and how much lighter and darker


def tinted(base: np.ndarray, color: Color, striped: bool = True) -> np.ndarray:
    """An image in one colour, which is the average of the whole of it on every picture.

    Args:
        base: (H, W, 3) float in [0, 1].
        color: what it becomes; the image is left as a pale relief.
        striped: with diagonal stripes, which no picture has where it is plain.

    Returns:
        (H, W, 3) float.
    """
    grey = base.mean(-1, keepdims=True)
    down, right = np.ogrid[: base.shape[0], : base.shape[1]]
    stripe = ((down + right) // STRIPE % 2 * 2 - 1)[..., None] * DEEP * striped
    return np.asarray((np.asarray(color) + stripe + REST * (grey - grey.mean())).clip(0, 1))


def patch_slice(patch: int, columns: int, cell: int) -> tuple[slice, slice]:
    """Where a patch's pixels are: `columns` patches in a row, each of `cell` pixels on a side."""
    row, column = divmod(patch, columns)
    return slice(row * cell, (row + 1) * cell), slice(column * cell, (column + 1) * cell)


def cluster_colors(merged: ImageTrace | None) -> dict[int, Color]:
    """A colour for each anchor; neighbours in anchor order are far apart on the colour circle."""
    anchors = [] if merged is None else merged.anchors
    golden = 0.618034  # of a turn
    return {a: colorsys.hsv_to_rgb((0.09 + golden * i) % 1, 0.85 - 0.25 * (i % 2), 1.0) for i, a in enumerate(anchors)}


def shade(
    base: np.ndarray,
    grid: tuple[int, int],
    kept: set[int],
    dropped: set[int],
    merged: ImageTrace | None,
    colors: dict[int, Color],
) -> np.ndarray:
    """An image with only the kept patches as they are, those dropped here in one colour and the others in another.

    Args:
        base: (H, W, 3) float in [0, 1].
        grid: its rows and columns of patches.
        kept, dropped: patches in raster order.
        merged: the members of its clusters are tinted with their anchor's colour.
        colors: anchor -> colour.

    Returns:
        (H, W, 3) float.
    """
    cell, columns = base.shape[0] // grid[0], grid[1]
    out, here = tinted(base, GONE), tinted(base, DROPPED)
    for patch in range(grid[0] * columns):
        where = patch_slice(patch, columns, cell)
        if patch in kept:
            out[where] = base[where]
        elif patch in dropped:
            out[where] = here[where]
    if merged is not None:
        for anchor, members in zip(merged.anchors, merged.clusters, strict=True):
            for patch in members:
                where = patch_slice(patch, columns, cell)
                out[where] = (1 - MEMBER) * base[where] + MEMBER * np.asarray(colors[anchor])
    return out
