"""Settings from YAML into dataclasses: unknown keys and wrong values are one sentence each. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar

from ..errors import DuetError, closest, shown

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """What a setting may be.

    Attributes:
        read: the value as it is used; raises TypeError, ValueError or OverflowError for a wrong one.
        must: the end of the sentence "NAME must be ...".
    """

    read: Callable[[Any], Any]
    must: str


def setting(kind: Kind, default: Any = MISSING, *, free: bool = False) -> Any:
    """A dataclass field. Without a default it must be given; `free` may change when a run is resumed."""
    return field(default=default, metadata={"kind": kind, "free": free})


def group(of: type, *, required: bool = False) -> Any:
    """A dataclass field that holds settings of its own."""
    metadata = {"group": of, "kind": MAPPING}
    return field(metadata=metadata) if required else field(default_factory=of, metadata=metadata)


def read(of: type[T], data: Any, where: str = "") -> T:
    """Settings from plain data.

    Raises:
        ValueError: an unknown key (with the nearest valid one), a missing or a wrong value.
    """
    if not isinstance(data, Mapping):
        raise DuetError(f"{where or 'the settings'} must be a mapping of names to values, not {shown(data)}.")
    known: dict[str, Field[Any]] = {f.name: f for f in fields(of)}  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise DuetError(f"setting {name!r} is unknown: {nearest(str(key), list(known))}.")
        entry = known[key]
        if "group" in entry.metadata:
            values[key] = read(entry.metadata["group"], {} if value is None else value, name)
        else:
            values[key] = _value(entry, name, value)
    for key, entry in known.items():
        if key not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise DuetError(f"setting {where + '.' if where else ''}{key} is missing: it must be {_must(entry)}.")
    return of(**values)


def nearest(name: str, known: list[str]) -> str:
    """The valid name that is most like one that is not, or all of them."""
    close = closest(name, known)
    return f"the nearest valid one is {close!r}" if close is not None else f"choose one of {', '.join(known)}"


def _value(entry: Field[Any], name: str, value: Any) -> Any:
    if value is None and entry.default is None:
        return None
    try:
        return entry.metadata["kind"].read(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DuetError(f"setting {name} must be {_must(entry)}, not {shown(value)}.") from error


def _must(entry: Field[Any]) -> str:
    must: str = entry.metadata["kind"].must
    return must + (", or nothing" if entry.default is None else "")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else list(value)
    if not values:
        raise ValueError
    return tuple(_text(v) for v in values)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError
    return dict(value)


TEXT = Kind(_text, "a text")
TEXTS = Kind(_texts, "a text or a list of texts")
FLAG = Kind(_flag, "true or false")
MAPPING = Kind(_mapping, "a mapping of names to values")


def whole(least: int) -> Kind:
    """A whole number of at least `least`."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError
        return value

    return Kind(read, f"a whole number of at least {least}")


def number(low: float, high: float | None = None, *, above: bool = False) -> Kind:
    """A number from `low` (or above it) to `high`. YAML 1.1 reads 2e-4 as text, which is taken as the number it is."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise TypeError
        given = float(value)
        if not (low < given if above else low <= given) or not given <= (1e308 if high is None else high):
            raise ValueError
        return given

    start = f"above {low:g}" if above else f"of at least {low:g}"
    return Kind(read, f"a number {start}" + ("" if high is None else f" and at most {high:g}"))


def choice(*allowed: str) -> Kind:
    """One of these words."""

    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return Kind(read, f"one of {', '.join(allowed)}")
