"""`fallback`: below which lead of its first token an answer is given again with all visual tokens."""

from __future__ import annotations

from typing import Any

from ..errors import DuetError, shown
from .drops import set_fields
from .values import is_number


def check_fallback(settings: Any) -> None:
    """Keep the `fallback` of a `Settings` as a float.

    Raises:
        DuetError: it is no number from 0 to 1, or what it falls back to is not there with the other settings.
    """
    value = settings.fallback
    if value is None:
        return
    if not is_number(value) or not 0 <= value <= 1:
        raise DuetError(f"fallback {shown(value)} must be a difference of probabilities, from 0 to 1.")
    for name in ("downsample", "pixelprune", "audio_keep"):
        if getattr(settings, name) is not None:
            raise DuetError(
                f"fallback {value:g} needs all visual tokens as the encoder made them, which {name} never makes: leave "
                "one of them out."
            )
    set_fields(settings, fallback=float(value))
