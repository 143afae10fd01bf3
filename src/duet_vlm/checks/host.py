"""The cache by either name that transformers gives it."""

from __future__ import annotations

import inspect
from typing import Any

NAMES = ("cache", "past_key_values")


def cache_of(output: Any) -> Any:
    """The cache in an output of a model or of `generate`."""
    return next(getattr(output, name) for name in NAMES if getattr(output, name, None) is not None)


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """A cache as the keyword argument that the model takes it by."""
    known = inspect.signature(type(model).forward).parameters
    return {next(name for name in NAMES if name in known): cache}
