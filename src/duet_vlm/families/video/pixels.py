"""Frames to the numbers that a vision tower takes: resize, crop, normalise, cut into patches (tensors only).

Every step is what transformers' video processors compute with torchvision, which is torch's own `interpolate` below.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import DuetError

MODES = {2: "bilinear", 3: "bicubic", 1: "lanczos"}  # PIL's numbers of its filters


def resize(frames: Tensor, height: int, width: int, resample: int) -> Tensor:
    """(T, 3, H, W) uint8 -> (T, 3, height, width) uint8, antialiased.

    Raises:
        ValueError: a filter that is not in `MODES`.
    """
    if resample not in MODES:
        raise DuetError(f"resample {resample!r} is not supported for videos: choose one of {sorted(MODES)}.")
    if tuple(frames.shape[-2:]) == (height, width):
        return frames
    return F.interpolate(frames, (height, width), mode=MODES[resample], align_corners=False, antialias=True)


def shortest_edge(height: int, width: int, edge: int) -> tuple[int, int]:
    """Height and width with the shorter of them `edge` and the same shape; the longer rounded down."""
    if height <= width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge


def longest_edge(height: int, width: int, edge: int) -> tuple[int, int]:
    """Height and width with the longer of them `edge` and the same shape; the shorter rounded down, then up to even."""
    shape = width / height
    if width >= height:
        other = int(edge / shape)
        return max(other + other % 2, 1), edge
    other = int(edge * shape)
    return edge, max(other + other % 2, 1)


def whole_patches(
    height: int, width: int, factor: int, minimum: int, maximum: int, frames: int = 1, multiple: int = 1
) -> tuple[int, int]:
    """Height and width that are multiples of `factor`, of about the same shape, with `minimum` to `maximum` pixels.

    Args:
        height, width: pixels of a frame.
        factor: side of a merged patch in pixels.
        minimum, maximum: pixels, of all frames together.
        frames: how many there are.
        multiple: the frames of one temporal patch; the bounds count whole ones.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    if max(height, width) > 200 * min(height, width):
        raise DuetError(f"a frame of {width} x {height} pixels is too narrow: its sides may differ 200 times at most.")
    rows, columns = round(height / factor), round(width / factor)
    counted = round(frames / multiple) * multiple
    pixels = counted * rows * columns * factor**2
    if pixels > maximum:
        shrink = math.sqrt(frames * height * width / maximum)
        rows = max(1, math.floor(height / shrink / factor))
        columns = max(1, math.floor(width / shrink / factor))
    elif pixels < minimum:
        grow = math.sqrt(minimum / (frames * height * width))
        rows, columns = math.ceil(height * grow / factor), math.ceil(width * grow / factor)
    return rows * factor, columns * factor


def center_crop(frames: Tensor, height: int, width: int) -> Tensor:
    """(T, 3, H, W) -> (T, 3, height, width); black where a frame is smaller."""
    above, beside = max(height - frames.shape[-2], 0), max(width - frames.shape[-1], 0)
    frames = F.pad(frames, (beside // 2, (beside + 1) // 2, above // 2, (above + 1) // 2))
    top, left = (frames.shape[-2] - height) // 2, (frames.shape[-1] - width) // 2
    return frames[..., top : top + height, left : left + width]


def normalize(frames: Tensor, mean: list[float], std: list[float], scale: float) -> Tensor:
    """(T, 3, H, W) uint8 -> float32 `(frames * scale - mean) / std`, with the scale inside mean and std."""
    shift, spread = (torch.tensor(values)[:, None, None] * (1.0 / scale) for values in (mean, std))
    return frames.float().sub_(shift).div_(spread)


def patches(frames: Tensor, patch: int, merge: int, temporal: int) -> tuple[Tensor, list[int]]:
    """Flat patches in the order of Qwen-VL's vision tower: the `merge` x `merge` ones of a merged token together.

    Args:
        frames: (T, 3, H, W); the last is repeated until T is a multiple of `temporal`.
        patch: pixels of a patch's side.
        merge: patches of a merged token's side.
        temporal: frames of a patch.

    Returns:
        (t x h x w, 3 x temporal x patch x patch) patches, and the grid [t, h, w] in patches.
    """
    missing = -len(frames) % temporal
    frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    t, h, w = len(frames) // temporal, frames.shape[-2] // patch, frames.shape[-1] // patch
    parts = frames.view(t, temporal, 3, h // merge, merge, patch, w // merge, merge, patch)
    flat = parts.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, 3 * temporal * patch * patch)
    return flat, [t, h, w]
