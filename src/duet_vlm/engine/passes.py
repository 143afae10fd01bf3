"""Settings change between forward passes, never in the middle of one that another thread runs."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import DuetError


class Passes:
    """Counts the forward passes that are under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: Counter[int] = Counter()  # thread -> passes

    @torch.compiler.disable
    def enter(self) -> None:
        """A forward pass begins; waits while settings change."""
        with self._changed:
            self._running[threading.get_ident()] += 1

    @torch.compiler.disable
    def leave(self) -> None:
        """A forward pass is over, or failed."""
        me = threading.get_ident()
        with self._changed:
            self._running[me] -= 1
            if self._running[me] <= 0:
                del self._running[me]
            self._changed.notify_all()

    @contextlib.contextmanager
    def between(self) -> Iterator[None]:
        """Inside, no pass runs; waits for those of other threads.

        Raises:
            DuetError: this thread's own pass is under way.
        """
        with self._changed:
            if threading.get_ident() in self._running:
                raise DuetError("settings cannot change in the middle of a forward pass: change them before or after.")
            while self._running:
                self._changed.wait()
            yield

    def __deepcopy__(self, memo: dict[int, Any]) -> Passes:
        return Passes()

    def __reduce__(self) -> Any:
        return Passes, ()
