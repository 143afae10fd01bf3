"""Plain values as users give them. As numbers, numpy's are taken too; truth values and texts are not."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DuetError, closest, shown

LARGEST = 2**31 - 1  # of counts and layers; no image and no model has as many


def check_flag(name: str, value: Any) -> None:
    """Raises DuetError for what is neither True nor False."""
    if not isinstance(value, bool):
        raise DuetError(f"{name} {shown(value)} must be True or False.")


def is_whole(value: Any, minimum: int) -> bool:
    """Whether it is a whole number of at least `minimum`.

    Raises:
        DuetError: one that no image and no model has as many of.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return False
    if int(value) > LARGEST:
        raise DuetError(f"the number {shown(value)} is too large to count tokens or layers: give at most {LARGEST}.")
    return int(value) >= minimum


def is_number(value: Any) -> bool:
    """Whether it is a real number, NaN and infinity included: comparisons refuse these."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def as_count(name: str, value: Any, minimum: int) -> int | float:
    """A number of tokens as an int, a fraction of them as a float.

    Raises:
        DuetError: neither an int of at least `minimum` nor a float in (0, 1].
    """
    if is_whole(value, minimum):
        return int(value)
    if is_number(value) and not isinstance(value, numbers.Integral):
        if not 0 < value <= 1:
            raise DuetError(f"{name} {shown(value)} is a fraction and must be in (0, 1]: give an int to count tokens.")
        return float(value)
    raise DuetError(f"{name} {shown(value)} must be an int of at least {minimum}, or a float fraction in (0, 1].")


def as_sides(name: str, value: Any, maximum: int, which: str) -> tuple[int, ...]:
    """Numbers of patches along the sides of an image, as ints; `which` says which, where the sentence names them.

    Raises:
        DuetError: not 2 to `maximum` whole numbers of at least 1.
    """
    sides = value if isinstance(value, (tuple, list)) else ()
    if not 2 <= len(sides) <= maximum or not all(is_whole(side, 1) for side in sides):
        raise DuetError(f"{name} {shown(value)} must be {which} of patches, each a whole number of at least 1.")
    return tuple(int(side) for side in sides)


def as_share(name: str, value: Any) -> float:
    """A fraction in (0, 1] as a float.

    Raises:
        DuetError: anything else.
    """
    if not is_number(value) or not 0 < value <= 1:
        raise DuetError(f"{name} {shown(value)} must be a fraction in (0, 1].")
    return float(value)


def check_budget(tokens: Any, keep: Any) -> None:
    """Raises DuetError for a budget in tokens, or as a fraction, that no model can meet; None is none."""
    if tokens is not None and not (is_number(tokens) and 0 < tokens <= LARGEST):
        raise DuetError(f"tokens {shown(tokens)} must be a number above 0, and at most {LARGEST}.")
    if keep is not None and not (is_number(keep) and 0 < keep <= 1):
        raise DuetError(f"keep {shown(keep)} must be a fraction in (0, 1].")


def check_names(settings: Mapping[Any, Any], known: Sequence[str]) -> None:
    """Raises DuetError for a setting that is none of the `known` ones of `DuetConfig`, with the nearest one."""
    for name in settings:
        if name not in known:
            near = closest(name, known)
            listed = ", ".join(known) if near is None else f"{near}, which is the nearest name"
            raise DuetError(f"setting {shown(name)} is unknown: a DuetConfig has {listed}.")
