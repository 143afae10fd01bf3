"""The setting `pixelprune`: how alike two blocks of an image must be for one of them to go before the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DuetError, shown
from . import registry
from .values import is_number

if TYPE_CHECKING:
    from .settings import Settings

NAME = "pixelprune"  # of the method and of the setting
EXACT = 0.0  # the threshold of the method: what goes is a copy
HIGHEST = 255.0  # level of a pixel


def checked(settings: Settings) -> float | None:
    """The threshold of these settings as a float, in levels of 0 to 255; None where nothing is asked for.

    Raises:
        DuetError: no such threshold, or a stage 1 that needs what is left of an image to be a rectangle.
    """
    threshold = settings.pixelprune
    if threshold is None:
        return None
    if not is_number(threshold) or not 0 <= threshold < HIGHEST:
        raise DuetError(
            f"pixelprune {shown(threshold)} must be the largest difference between equal pixels, a number from 0 "
            "(identical) to below 255: give 0, or None to switch it off."
        )
    if settings.downsample is not None:
        raise DuetError("pixelprune and downsample both make an image smaller before the encoder: give one of them.")
    method = settings.stage1_method
    if settings.dominant is not None and ("grid" in method.needs or method.whole_videos):
        able = [row.name for row in registry.STAGE1.values() if _is_able(row)]
        raise DuetError(
            f"merging {registry.called(settings.merging)} needs whole images, and pixelprune leaves holes in them: "
            f"choose one of {', '.join(able)}, or leave pixelprune None."
        )
    return float(threshold)


def _is_able(row: registry.Stage1Method) -> bool:
    return row.at == "encoder" and "grid" not in row.needs and not row.whole_videos


def check_countable(settings: Settings) -> None:
    """Raises DuetError where it is asked what settings cost, or how long they take, without a picture to look at."""
    if settings.pixelprune is not None:
        raise DuetError(
            "what pixelprune leaves out depends on the picture, and here there is none: count it on yours with "
            "`duet run` or `duet eval`, or leave pixelprune out."
        )
