"""For whom encoders work: for the engine alone, or for everyone who calls them. It ends with the call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_engine_only: ContextVar[bool] = ContextVar("duet_vlm_engine_only", default=False)
_handed_on: ContextVar[bool] = ContextVar("duet_vlm_handed_on", default=False)


@contextlib.contextmanager
def for_engine(only: bool = True, handed_on: bool = False) -> Iterator[None]:
    """Inside, encoders work for the engine alone: what stock would make of removed tokens need not be computed.

    Args:
        only: False to let them work for everyone after all.
        handed_on: whether a forward pass gets their output as an argument, where accelerate's hooks copy items alone.
    """
    tokens = _engine_only.set(only), _handed_on.set(handed_on)
    try:
        yield
    finally:
        _engine_only.reset(tokens[0])
        _handed_on.reset(tokens[1])


def for_everyone() -> None:
    """Until the `for_engine` around it ends, whoever calls an encoder gets what stock gives."""
    _engine_only.set(False)


def engine_only() -> bool:
    """Whether nobody but the engine gets what an encoder makes now."""
    return _engine_only.get()


def handed_on() -> bool:
    """Whether a forward pass gets it as an argument."""
    return _handed_on.get()
