"""A line that cannot be read, said in one sentence as every other error is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from ..errors import DuetError

# the class that all of the parser's errors have in common; typer names none but this heir of it
UsageError: Any = typer.BadParameter.__mro__[1]


@contextlib.contextmanager
def in_a_sentence(command: str, args: Sequence[str]) -> Iterator[None]:
    """What typer's parser refuses is a `DuetError`.

    Args:
        command: as it was called, such as "duet run".
        args: its line, in which the value is looked up that cannot be.
    """
    try:
        yield
    except UsageError as error:
        raise DuetError(_sentence(error, command, args)) from error


def _sentence(error: Any, command: str, args: Sequence[str]) -> str:
    how = f"{command} -h shows how."
    kind, parameter = type(error).__name__, getattr(error, "param", None)
    if kind == "NoSuchOption":
        near = [name for name in error.possibilities or () if name != "--help"]
        advice = f"did you mean {' or '.join(near)}?" if near else how
        return f"{command} has no option {error.option_name}: {advice}"
    commands = getattr(getattr(error.ctx, "command", None), "commands", None)
    if commands and args and parameter is None:
        return f"{args[0]!r} is no command of {command}: choose one of {', '.join(commands)}."
    if parameter is None:
        text = error.format_message().rstrip(".")
        return f"{text[:1].lower()}{text[1:]}: {how}"
    option = parameter.param_type_name == "option"
    name = max(parameter.opts, key=len) if option else parameter.metavar or parameter.name.upper()
    if kind == "MissingParameter":
        return f"{name} is missing: {how}"
    values = _values(parameter.opts, args) if option else []
    given = [repr(value) for value in values if not _is_number(value)] or list(map(repr, values))
    # of a number typer says "Input should be a valid number, unable to parse string as a number"
    wrong = error.message.partition(",")[0].rstrip(".").replace("Input should be", "must be")
    return f"{' '.join([name, *given])} {wrong}: {how}"


def _values(names: Sequence[str], args: Sequence[str]) -> list[str]:
    """What stands behind an option wherever it is given."""
    found = []
    for word, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in names:
            found.append(value if equals else following)
    return found


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
