"""The version of a config as it is saved, apart from the package's own: it grows when an older package cannot read it.

1: the first. Release 0.1 wrote the same fields without a version.
2: with `audio_keep`; without it, version 1 is written still.
"""

from __future__ import annotations

from typing import Any

from ..errors import DuetError, shown
from .values import is_whole

FIRST, VERSION = 1, 2


def check_version(version: Any) -> None:
    """Raises DuetError for a version that this package does not read; an older one it reads."""
    if not is_whole(version, 1):
        raise DuetError(f"version {shown(version)} of a config must be a whole number from 1 to {VERSION}.")
    if version > VERSION:
        raise DuetError(
            f"this config has version {shown(version)}, and this duet-vlm reads up to version {VERSION}: install a "
            "newer one."
        )
