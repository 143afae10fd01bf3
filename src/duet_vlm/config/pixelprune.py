"""The setting `pixelprune`: how alike two blocks of an image must be for one of them to go before the encoder."""

from __future__ import annotations

from typing import Any

from ..errors import DuetError, shown
from . import registry
from .values import is_number

NAME = "pixelprune"  # of the method and of the setting
EXACT = 0.0  # the threshold of the method: what goes is a copy
HIGHEST = 255.0  # level of a pixel


def checked(threshold: Any, *, downsample: Any, dominant: Any, merging: Any) -> float | None:
    """The threshold of a config as a float, in levels of 0 to 255; None where nothing is asked for.

    Args:
        threshold, downsample, dominant, merging: its settings.

    Raises:
        DuetError: no such threshold, or a stage 1 that needs what is left of an image to be a rectangle.
    """
    if threshold is None:
        return None
    if not is_number(threshold) or not 0 <= threshold < HIGHEST:
        raise DuetError(
            f"pixelprune {shown(threshold)} must be the largest difference between equal pixels, a number from 0 "
            "(identical) to below 255: give 0, or None to switch it off."
        )
    if downsample is not None:
        raise DuetError("pixelprune and downsample both make an image smaller before the encoder: give one of them.")
    if dominant is not None and not _is_able(registry.stage1_method(merging)):
        able = [row.name for row in registry.STAGE1.values() if _is_able(row)]
        raise DuetError(
            f"merging {registry.called(merging)} needs whole images, and pixelprune leaves holes in them: "
            f"choose one of {', '.join(able)}, or leave pixelprune None."
        )
    return float(threshold)


def _is_able(row: registry.Stage1Method) -> bool:
    return row.at == "encoder" and "grid" not in row.needs and not row.whole_videos


def check_countable(threshold: float | None) -> None:
    """Raises DuetError for any threshold: for whoever counts or times settings without a picture to look at."""
    if threshold is not None:
        raise DuetError(
            "what pixelprune leaves out depends on the picture, and here there is none: count it on yours with "
            "`duet run` or `duet eval`, or leave pixelprune out."
        )
