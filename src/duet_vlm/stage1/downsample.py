"""Before the encoder: a smaller image, so that there are fewer tokens from the start. The baseline of every encoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..config.registry import Stage1Method

METHOD = Stage1Method(name="downsample", at="pixels", order=8)


def downsample(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size) in the dtype of the pixels: bicubic, with antialiasing."""
    return interpolate(pixels.float(), size, mode="bicubic", antialias=True).to(pixels)


def covered(small: tuple[int, int], whole: tuple[int, int]) -> Tensor:
    """Where the patches of a smaller image stand in the whole one.

    Args:
        small: rows and columns of patches that are left.
        whole: rows and columns of patches of the image as it was.

    Returns:
        (rows * columns of `small`,) long: the patch in the middle of what each small patch covers, in raster order.
    """
    rows, columns = (
        (2 * torch.arange(left) + 1) * there // (2 * left) for left, there in zip(small, whole, strict=True)
    )
    return (rows[:, None] * whole[1] + columns).flatten()
