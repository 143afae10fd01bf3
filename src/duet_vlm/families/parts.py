"""What stage 1 needs to know of a family."""

from __future__ import annotations

from typing import Any, Protocol


class Parts(Protocol):
    """What a family calls the parts of its core model, and where an encoder's output holds what."""

    towers: tuple[str, ...]
    projectors: tuple[str, ...]

    def entries(self, output: Any) -> Any: ...
