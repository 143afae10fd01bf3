"""Settings change between forward passes, never in the middle of one that another thread runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..errors import DuetError


def _uncompiled(work: Callable[[], None]) -> Callable[[], None]:
    """What a compiled graph breaks for; asked first, because torch's wrapper costs a decoding step 10 microseconds."""
    return torch.compiler.disable(work) if torch.compiler.is_compiling() else work


class Passes:
    """Counts the forward passes that are under way."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._running: dict[int, int] = {}  # thread -> passes

    def enter(self) -> None:
        """A forward pass begins; waits while settings change."""
        _uncompiled(self._enter)()

    def leave(self) -> None:
        """A forward pass is over, or failed."""
        _uncompiled(self._leave)()

    def _enter(self) -> None:
        with self._lock:
            me = threading.get_ident()
            self._running[me] = self._running.get(me, 0) + 1

    def _leave(self) -> None:
        me = threading.get_ident()
        with self._lock:
            left = self._running.pop(me, 1) - 1
            if left:
                self._running[me] = left
            elif not self._running:
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
