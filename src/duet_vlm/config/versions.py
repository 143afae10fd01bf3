"""The version of a config as it is saved, apart from the package's own: it grows when an older package cannot read it.

1: the first. Release 0.1 wrote the same fields without a version.
2: with `audio_keep`. 3: with `fallback`, or with what `duet tune` promised. What is None is not written, nor what goes
with it, so that the lowest version is written that has the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DuetError, shown
from .values import is_whole

VERSION = 3
PROMISE = "promise"  # beside the settings in a file: what was promised of them
# setting -> the first version that has it, and the settings that mean nothing without it
LATER: dict[str, tuple[int, tuple[str, ...]]] = {
    "audio_keep": (2, ("audio_guides",)),
    "fallback": (3, ()),
    PROMISE: (3, ()),
}


def since_later(values: Mapping[str, Any]) -> list[str]:
    """Names of settings that the first version did not have and that are not used."""
    return [name for first, (_, more) in LATER.items() if values.get(first, 0) is None for name in (first, *more)]


def version_of(values: Mapping[str, Any]) -> int:
    """The lowest version that has all these settings."""
    return max([1, *(version for name, (version, _) in LATER.items() if name in values)])


def check_version(version: Any) -> None:
    """Raises DuetError for a version that this package does not read; an older one it reads."""
    if not is_whole(version, 1):
        raise DuetError(f"version {shown(version)} of a config must be a whole number from 1 to {VERSION}.")
    if version > VERSION:
        raise DuetError(
            f"this config has version {shown(version)}, and this duet-vlm reads up to version {VERSION}: install a "
            "newer one."
        )
