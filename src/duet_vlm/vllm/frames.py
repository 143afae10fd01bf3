"""Stage 1 of images and videos of any size, a frame at a time: counts, kept places, positions. Tensors and integers.

How many tokens a frame keeps follows from its grid alone. Which ones does not, so every kept token carries its place
in four more channels behind its features, in a form that bfloat16 holds exactly. The language model's side cuts them
off and adds the place to the position at which the token's frame begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.budget import stage1_counts
from ..config.settings import Settings
from ..stage1 import Encoded, merge
from ..stage1.common import at
from ..tensors.streamed import block_size

_BASE = 128  # bfloat16 has every whole number up to 256
CHANNELS = 4  # row and column, in two digits each


@dataclass(frozen=True)
class Grid:
    """The visual tokens of an image or video before stage 1: `frames` of `rows` by `columns`."""

    frames: int
    rows: int
    columns: int

    @classmethod
    def of(cls, thw: Sequence[int], side: int) -> Grid:
        """Of (frames, rows, columns) in patches, `side` of which a visual token is high and wide."""
        frames, rows, columns = (int(n) for n in thw)
        return cls(frames, rows // side, columns // side)

    @property
    def tokens(self) -> int:
        """Of one frame."""
        return self.rows * self.columns


def kept_of(settings: Settings, tokens: int) -> int:
    """How many of a frame's visual tokens stage 1 retains."""
    return sum(stage1_counts(settings, tokens, dynamic=True))


def compressed(
    settings: Settings,
    scores: Tensor,
    keys: Tensor,
    features: Tensor,
    shape: tuple[int, int],
    others: Tensor,
) -> Tensor:
    """What stage 1 makes of the frames of one image or video, retained tokens in raster order.

    Args:
        settings: of stage 1.
        scores: (T, N) float32, in raster order.
        keys: (T, N, d) float32.
        features: (T, N, D), which are merged.
        shape: rows and columns of the N tokens of a frame.
        others: (T, N, E) what is taken from each kept place unmerged, a contextual token's being its anchor's.

    Returns:
        (T * K, D + E + CHANNELS) in the dtype of the features.
    """
    # a long video would need float32 copies of all its frames at once
    together = max(1, 4 * block_size(features.device) // features[0].numel())
    parts = []
    for part in torch.arange(len(scores)).split(together):
        frames = slice(int(part[0]), int(part[-1]) + 1)
        encoded = Encoded(scores[frames], keys[frames], features[frames], shape)
        decided = merge(settings, encoded, dynamic=True)
        places, order = decided.places.sort(dim=1)
        retained = at(decided.retained(encoded.features), order)
        parts.append(torch.cat([retained, at(others[frames], places), _digits(places, shape[1]).to(features)], -1))
    return torch.cat(parts).flatten(0, 1)


def _digits(places: Tensor, columns: int) -> Tensor:
    """(T, K) places in a frame -> (T, K, CHANNELS)."""
    row, column = places // columns, places % columns
    return torch.stack([row // _BASE, row % _BASE, column // _BASE, column % _BASE], -1)


def without_places(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the channels off.

    Args:
        tokens: (n, D + CHANNELS), any part of what `compressed` gives.

    Returns:
        (n, D); (3, n) long, how far each token stands behind the first place of its frame, in time, rows and columns.
    """
    digits = tokens[:, -CHANNELS:].float().long()
    row, column = digits[:, 0] * _BASE + digits[:, 1], digits[:, 2] * _BASE + digits[:, 3]
    return tokens[:, :-CHANNELS], torch.stack([torch.zeros_like(row), row, column])


@dataclass(frozen=True)
class Item:
    """An image or video in a prompt.

    Attributes:
        offset: where it begins in the prompt as it is after stage 1, with any text that belongs to it.
        length: how many tokens of that prompt it takes.
        token: the id of its visual tokens.
        full, kept: visual tokens of each frame before stage 1 and after.
    """

    offset: int
    length: int
    token: int
    full: int
    kept: int


def widened(ids: Sequence[int], items: Iterable[Item]) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """The prompt as it would be without stage 1, for code that numbers its positions.

    Args:
        ids: the prompt's ids after stage 1.
        items: its images and videos, in order.

    Returns:
        The ids; for each token of `ids` the place that gives its position, which is its own place for text and the
        first place of its frame for a visual token; (offset, length) of every item.
    """
    full: list[int] = []
    places: list[int] = []
    spans: list[tuple[int, int]] = []
    done = 0

    def text(until: int) -> None:
        places.extend(range(len(full), len(full) + until - done))
        full.extend(ids[done:until])

    for item in items:
        text(item.offset)
        start, seen, done = len(full), 0, item.offset + item.length
        for token in ids[item.offset : done]:
            if token != item.token:
                places.append(len(full))
                full.append(token)
                continue
            if seen % item.kept == 0:
                first = len(full)
                full.extend([token] * item.full)
            places.append(first)
            seen += 1
        spans.append((start, len(full) - start))
    text(len(ids))
    return full, places, spans


def shortened(ids: Sequence[int], token: int, full: int, kept: int) -> list[int]:
    """The ids that stand for an image or video without stage 1, as they are after it: `kept` of `full` a frame."""
    short: list[int] = []
    seen = 0
    for one in ids:
        if one == token:
            seen += 1
            if (seen - 1) % full >= kept:
                continue
        short.append(one)
    return short
