"""Plain data, as JSON writes it: its digest, and its nested names in one row."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(data: Any, **how: Any) -> str:
    """SHA-256 of data as JSON, in 64 hexadecimal digits; `how` is passed to `json.dumps`."""
    return hashlib.sha256(json.dumps(data, **how).encode()).hexdigest()


def flattened(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
