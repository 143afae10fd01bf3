"""How many visual tokens a schedule leaves in each decoder layer. Plain arithmetic."""

from __future__ import annotations

import math
from typing import Any

from ..errors import DuetError
from .settings import Settings
from .values import as_sides

SLACK = 1e-6  # the engine floors with the same


def keep_count(keep: float, visual_tokens: int) -> int:
    """`floor(keep * visual_tokens)`, with `SLACK` for ratios such as 0.29 that binary floats round down."""
    return math.floor(keep * visual_tokens + SLACK)


def as_grid(grid: Any) -> tuple[int, ...]:
    """The patch grid of an image as it is given: rows and columns, or frames before them, as in `image_grid_thw`.

    Raises:
        DuetError: anything but 2 or 3 whole numbers of at least 1, in a tuple, a list, a tensor or an array.
    """
    return as_sides("grid", getattr(grid, "tolist", lambda: grid)(), 3, "(rows, columns) or (frames, rows, columns)")


def stage1_counts(
    config: Settings, visual_tokens: int, dynamic: bool = False, left: int | None = None
) -> tuple[int, int]:
    """K1 and K2 for one image of `visual_tokens`, of which `left` are there to choose from; all if not given.

    Fractions round down, K2 to at least 1. Encoders of dynamic resolution clamp both, as an image may be small
    (docs/method.md, 1.8: K1 = min(K1, N - 1), K2 = min(K2, N - K1)); fixed ones refuse what the image cannot hold.

    Raises:
        ValueError: K1 + K2 is more than a fixed-resolution image has.
    """
    if config.downsample is not None:
        return config.downsample[0] * config.downsample[1], 0
    if config.dominant is None:
        return visual_tokens, 0
    dominant, contextual = config.dominant, config.contextual
    if isinstance(dominant, float):
        dominant = max(1, keep_count(dominant, visual_tokens))
    if isinstance(contextual, float):
        contextual = max(1, keep_count(contextual, visual_tokens))
    if dynamic:
        left = visual_tokens if left is None else left
        dominant = min(dominant, left - 1) if left > 1 else 1
        contextual = min(contextual, left - dominant)
    elif dominant + contextual > visual_tokens:
        raise DuetError(
            f"dominant {dominant} + contextual {contextual} = {dominant + contextual} is more than the "
            f"{visual_tokens} visual tokens of an image: lower them to at most {visual_tokens} together."
        )
    return dominant, contextual


def tokens_per_layer(config: Settings, visual_tokens: int, layers: int, dynamic: bool = False) -> list[int]:
    """Visual tokens of one image that each of the `layers` decoder layers works on."""
    return after_drops(config, sum(stage1_counts(config, visual_tokens, dynamic)), layers)


def after_drops(config: Settings, entering: int, layers: int) -> list[int]:
    """Visual tokens in each layer when `entering` come out of stage 1."""
    counts = [entering] * layers
    for drop in config.drops:
        counts[drop.layer :] = [keep_count(drop.keep, entering)] * (layers - drop.layer)
    return counts
