"""Settings as pydantic models, and one formatter that turns what pydantic refuses into a sentence of ours.

Nothing heavy is imported, so wrong settings are refused before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import DuetError, closest, shown

MAPPING = "a mapping of names to values"
UNKNOWN = ("extra_forbidden", "invalid_key")


class Strict(BaseModel):
    """Strict that are read strictly: no unknown key, no text for a whole number, no 1 for true."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, validate_default=False)


T = TypeVar("T", bound=Strict)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 2e-4 as text, which is taken as the number it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError from error


def _texts(value: Any) -> Any:
    """One text is a list of one."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Text = Annotated[str, Field(pattern=r"\S")]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_texts), Field(min_length=1)]
EmptyIfNothing = BeforeValidator(lambda value: {} if value is None else value)  # `save:` with nothing below it


def read(of: type[T], data: Any) -> T:
    """Strict from plain data.

    Args:
        of: the model of the settings.
        data: what a YAML file holds, usually a mapping.

    Raises:
        DuetError: the first thing that is wrong: an unknown key (with the nearest valid one), a wrong value, a missing
            one, or values that exclude each other.
    """
    try:
        return of.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # a misspelt name is also a missing one
        order = {kind: place for place, kind in enumerate((*UNKNOWN, "other", "missing"))}
        first = min(problems, key=lambda one: order.get(one["type"], order["other"]))
        raise _refusal(of, data, first) from error


def nearest(name: str, known: list[str]) -> str:
    """The valid name that is most like one that is not, or all of them."""
    close = closest(name, known)
    return f"the nearest valid one is {close!r}" if close is not None else f"choose one of {', '.join(known)}"


def must_be(hint: Any, metadata: Any = ()) -> str:
    """The end of the sentence "NAME must be ...", from a type and the bounds that stand beside it."""
    words, nothing = [], ""
    for member in members(hint):
        kind = get_args(member)[0] if get_origin(member) is Annotated else member
        origin = get_origin(kind) or kind
        if origin is NoneType:
            nothing = ", or nothing"
        elif origin is Literal:
            words.append(f"one of {', '.join(map(str, get_args(kind)))}")
        elif isinstance(origin, type) and issubclass(origin, (dict, BaseModel)):
            words.append(MAPPING)
        else:
            words.append(NAMES.get(origin, "a text"))
    return " or ".join(dict.fromkeys(words)) + _bounds(metadata) + nothing


NAMES = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", list: "a list",
    tuple: "a text or a list of texts",
}  # fmt: skip


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _bounds(metadata: Any) -> str:
    limits = []
    for bound in metadata:
        if isinstance(bound, Gt):
            limits.append(f"above {bound.gt:g}")
        elif isinstance(bound, Ge):
            limits.append(f"of at least {bound.ge:g}")
        elif isinstance(bound, Le):
            limits.append(f"at most {bound.le:g}")
    return f" {' and '.join(limits)}" if limits else ""


def _refusal(of: type[BaseModel], data: Any, problem: Any) -> DuetError:
    """What is wrong, in one sentence, from one entry of pydantic's list."""
    own = problem.get("ctx", {}).get("error")
    if isinstance(own, DuetError):  # two settings that exclude each other
        return own
    name, model, value, entry = "", of, data, None
    for part in problem["loc"]:
        fields = model.model_fields
        if part not in fields:
            key = str(problem["input"] if problem["type"] == "invalid_key" else part)
            return DuetError(f"setting {name + key!r} is unknown: {nearest(key, list(fields))}.")
        entry = fields[part]
        value = value.get(part) if isinstance(value, Mapping) else value
        name += f"{part}."
        if not (isinstance(entry.annotation, type) and issubclass(entry.annotation, BaseModel)):
            break
        model = entry.annotation
    if entry is None:
        return DuetError(f"the settings must be {MAPPING}, not {shown(data)}.")
    must = must_be(entry.annotation, entry.metadata)
    if problem["type"] == "missing":
        return DuetError(f"setting {name[:-1]} is missing: it must be {must}.")
    return DuetError(f"setting {name[:-1]} must be {must}, not {shown(value)}.")
