"""Stage 1, V2V: which visual tokens are dominant, and how the rest are merged into contextual ones.

One method a file, each a function `(encoded, dominant, contextual, cluster_width) -> Merge` that retains
`dominant + contextual` tokens of every image, below its row. docs/method.md, stage 1.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..config.budget import stage1_counts
from ..config.registry import called
from ..config.settings import Settings
from ..errors import DuetError, shown
from .common import Encoded, Merge, Method, join, selected, spaced
from .options import discards, diversified, with_rest


def merge(
    config: Settings, encoded: Encoded, reserved: int = 0, dynamic: bool = False, whole: int | None = None
) -> Merge:
    """Merge these images as the config says: by its counts, its method and its options.

    Args:
        config: its `dominant`, `contextual`, `cluster_width`, `merging`, `combine`, `diverse` and `rest`.
        encoded: B images of equal size, or one whole video, which retains the counts of a frame times its frames.
        reserved: how many of the dominant tokens are no patches (CLS, where it enters the sequence).
        dynamic: whether images may be too small for the counts, which are then lowered.
        whole: tokens of an image or frame, where some were left out before the encoder and are not in `encoded`.
    """
    frames = encoded.frames
    there = encoded.tokens // frames
    dominant, contextual = (frames * n for n in stage1_counts(config, whole or there, dynamic, there))
    method, width = method_of(config), config.cluster_width
    dominant -= reserved
    if config.diverse:
        encoded = diversified(encoded, dominant)
    merged = method(encoded, dominant, contextual, width)
    if config.rest and contextual:
        fewer = method(encoded, dominant, contextual - 1, width)
        merged = with_rest(fewer) if discards(fewer) else merged
    if config.combine == "mean":
        merged = replace(merged, averaged=torch.ones_like(merged.anchors, dtype=torch.bool))
    return merged


def shown_together(config: Settings, video: Encoded) -> list[Encoded]:
    """What the config's method is shown at a time: all of a video, or each of its frames."""
    if video.frames == 1 or config.stage1_method.whole_videos:
        return [video]
    parts = (x.chunk(video.frames, dim=1) for x in (video.scores, video.keys, video.features))
    return [Encoded(scores, keys, features, video.grid) for scores, keys, features in zip(*parts, strict=True)]


def method_of(config: Settings) -> Method:
    """The function that a config names or has; what one of your own returns is looked at."""
    row = config.stage1_method
    method: Method = row.load()
    if isinstance(row.function, str):
        return method

    def checked(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
        merged = method(encoded, dominant, contextual, cluster_width)
        _check(row.name or called(row.function), merged, encoded, dominant + contextual)
        return merged

    return checked


def _check(name: str, result: object, encoded: Encoded, retained: int) -> None:
    """Raises DuetError for what is no `Merge` of these images, or retains another number of tokens."""
    if not isinstance(result, Merge):
        raise DuetError(f"merging {name} must return a Merge, and it returned {shown(result)}.")
    batch = len(encoded.scores)
    for wanted, what, tensor in (
        ((batch, retained), "dominant and anchors together", result.places),
        (tuple(result.members.shape), "joins, as members,", result.joins),
        (tuple(encoded.scores.shape), "scores", result.scores),
    ):
        if tuple(tensor.shape) != wanted:
            raise DuetError(
                f"merging {name} must return {what} of shape {wanted}, and they have {tuple(tensor.shape)}."
            )


__all__ = ["Encoded", "Merge", "Method", "join", "merge", "method_of", "selected", "shown_together", "spaced"]
