"""The version of a config as it is saved, apart from the package's own: it grows when an older package cannot read it.

1: the first. Release 0.1 wrote the same fields without a version.
2: with `audio_keep`.
3: with `pixelprune`, `coverage`, `history` or `fallback`, or with what `duet tune` promised.
A config that has none of these is written as version 1 still.
"""

from __future__ import annotations

from typing import Any

from ..errors import DuetError, shown
from .values import is_whole

FIRST, VERSION = 1, 3
PROMISE = "promise"  # beside the settings in a file: what was promised of them
# a setting that came later -> the version that it came with, and what has no meaning without it
LATER: dict[str, tuple[int, tuple[str, ...]]] = {
    "audio_keep": (2, ("audio_guides",)),
    "fallback": (3, ()),
    "pixelprune": (3, ()),
    "coverage": (3, ("coverage_floor",)),
    "history": (3, ()),
}


def readable(values: dict[str, Any]) -> dict[str, Any]:
    """Values of settings as they are saved: without later ones that are None, so that an older package reads them."""
    version, left = FIRST, dict(values)
    for name, (since, beside) in LATER.items():
        if values[name] is not None:
            version = max(version, since)
            continue
        for one in (name, *beside):
            del left[one]
    return {"version": version} | left


def check_version(version: Any) -> None:
    """Raises DuetError for a version that this package does not read; an older one it reads."""
    if not is_whole(version, 1):
        raise DuetError(f"version {shown(version)} of a config must be a whole number from 1 to {VERSION}.")
    if version > VERSION:
        raise DuetError(
            f"this config has version {shown(version)}, and this duet-vlm reads up to version {VERSION}: install a "
            "newer one."
        )
