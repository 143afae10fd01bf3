"""The errors that this library raises on purpose: one sentence that says what to put right. Imports nothing of ours."""

from __future__ import annotations

import difflib
import numbers
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 40  # characters of a value in a sentence


class DuetError(ValueError):
    """A value, a model or a file that this library cannot work with.

    Its message is one sentence: what was given, what is allowed, and what to do. It is raised before anything is
    touched. The commands print it as one line; any other exception is a bug, of this library or of another, and keeps
    its stack trace. It is a ValueError, so code that catches those goes on working.

    Example:
        >>> from duet_vlm import Drop, DuetError
        >>> try:
        ...     Drop(16, 1.5)
        ... except DuetError as error:
        ...     print(error)
        keep ratio 1.5 at drop layer 16 must be a number from 0 to 1.
    """


class CacheError(DuetError, TypeError):
    """A key-value cache of a kind that visual tokens cannot be dropped from."""


def shown(value: Any) -> str:
    """A value as a sentence names it: plain data as written, shortened; of anything else its class."""
    if isinstance(value, type):
        return f"the class {short(value.__name__)}"
    if value is None or isinstance(value, (str, bytes, numbers.Number, list, tuple, set, frozenset, Mapping)):
        return short(_repr.repr(value))
    return f"an object of type {short(type(value).__name__)}"


def short(text: str, longest: int = LONGEST) -> str:
    """A text on one line, its middle left out where it is long."""
    text = " ".join(text.split())
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"


def reason(error: BaseException, longest: int = 80) -> str:
    """The first line of another library's error, to stand inside a sentence."""
    return short((str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".: "), longest)


def listed(names: Iterable[str], room: int = 90) -> str:
    """Names as a sentence lists them: the first ones, as many as there is room for, and how many more there are."""
    known = list(names)
    fit = next((n for n in range(len(known), 1, -1) if len(", ".join(known[:n])) <= room), 1)
    return ", ".join(known[:fit]) + (f" and {len(known) - fit} more" if fit < len(known) else "")


def closest(name: Any, known: Iterable[str]) -> str | None:
    """The known name that is most like one that is not."""
    close = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    return close[0] if close else None


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write whole numbers of more than 4,300 digits
        return repr(x) if abs(x) < 10**20 else f"about {'-' * (x < 0)}10**{round(x.bit_length() * 0.30103)}"


_repr = _Repr()
_repr.maxstring = _repr.maxother = LONGEST
