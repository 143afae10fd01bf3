"""Settings in a file of their own, as `duet tune` writes it: `DuetConfig.save` and `DuetConfig.load`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ..errors import DuetError, reason, shown
from .settings import Settings
from .versions import PROMISE, VERSION


def are_settings(data: Mapping[Any, Any]) -> bool:
    """Whether this is what `save` writes, rather than options of a command."""
    return "version" in data and "drops" in data


def save(settings: Settings, path: str | os.PathLike[str], promise: Mapping[str, Any] | None = None) -> None:
    """Write settings, and what was promised of them, as JSON.

    Raises:
        DuetError: a method that has no name, or a file that cannot be written.
    """
    data = settings.to_dict()
    if promise is not None:
        data |= {"version": VERSION, PROMISE: dict(promise)}
    text = json.dumps(data, indent=1) + "\n"
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, TypeError) as error:
        raise DuetError(
            f"settings cannot be saved to {shown(str(path))} ({reason(error)}): give another file."
        ) from error


def read(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read the settings that `save` wrote, with the promise.

    Raises:
        DuetError: no such file, or one that holds no settings.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, TypeError, ValueError) as error:
        raise DuetError(
            f"settings cannot be read from {shown(str(path))} ({reason(error)}): give a file that duet tune or "
            "DuetConfig.save wrote."
        ) from error
    if not isinstance(data, Mapping):
        raise DuetError(f"{shown(str(path))} holds no settings: give a file that duet tune or DuetConfig.save wrote.")
    return data
