"""Whole videos: all frames of one at a time, in blocks that do not grow with their number."""

from __future__ import annotations

from torch import Tensor

from ..tensors.streamed import block_size
from .common import Encoded


def framed(x: Tensor, encoded: Encoded) -> Tensor:
    """(B, N, ...) -> (B, T, N / T, ...), a frame after the other, for decisions, which have no gradient."""
    frames: Tensor = x.detach().unflatten(1, (encoded.frames, -1))
    return frames


def few_frames(video: Tensor, first: int = 0) -> list[slice]:
    """Cut the frames of (B, T, n, D) from `first` on into runs whose float32 copies are held at a time."""
    count = max(1, 4 * block_size(video.device) // max(1, video[:, :1].numel()))
    return [slice(start, min(start + count, video.shape[1])) for start in range(first, video.shape[1], count)]
