"""The methods that have a name. A row stands beside its function, in the method's own file, or comes from outside.

Configs, presets, the commands, the tables of docs/methods.md and the tests read these rows. They are found without
importing torch: the files of `stage1/` and `stage2/` are read, not run, and a function is imported when it is used.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from inspect import signature
from typing import Any, Literal, TypeVar

from ..errors import DuetError, listed, reason, short, shown
from .schedule import Schedule

ROOT = __package__.rpartition(".")[0]
GROUP = "duet_vlm.methods"  # of entry points
STAGE1_TAKES = ("encoded", "dominant", "contextual", "cluster_width")
RANKING_TAKES = ("inputs",)


@dataclass(frozen=True, kw_only=True)
class _Named:
    """What every row with a function has.

    Attributes:
        name: of the method, and of its function.
        paper: its arXiv id; "" for none.
        function: what does it, or "module:function", which is imported when it is used.
        order: where it stands in lists; methods without one follow, by name.
    """

    name: str
    paper: str = ""
    function: Callable[..., Any] | str = ""
    order: int = 100

    def load(self) -> Callable[..., Any]:
        """The function."""
        if callable(self.function):
            return self.function
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function


@dataclass(frozen=True, kw_only=True)
class Stage1Method(_Named):
    """A way to have fewer visual tokens before the language model begins.

    Attributes:
        at: "encoder" for a function `(encoded, dominant, contextual, cluster_width) -> Merge`; "pixels" for one before
            the encoder, where the setting that has the method's name says how much of an image's pixels is left.
        budgeted: whether a budget says how much it keeps; what a picture repeats is asked of the picture alone.
        contextual: the share of contextual tokens in a budget, from 0 to below 1, a number or a fraction as "1/6".
        needs: what of the `Encoded` decides which tokens are kept and merged.
        scored: whether the dominant tokens are the best by score, so that `diverse` has a meaning.
        discards: whether tokens are left out, so that `rest` has a meaning.
        averages: when a token of the language model stands for several, so that `proportional` has a meaning: "always",
            with "contextual" tokens, with a "pool" (contextual tokens, and a cluster width above 1), or "never".
        whole_videos: whether it is shown all frames of a video together, and may keep more of one than of another;
            other methods are shown one frame at a time.
    """

    at: Literal["encoder", "pixels"] = "encoder"
    budgeted: bool = True
    contextual: float | str = 0
    needs: tuple[Literal["scores", "keys", "features", "grid"], ...] = ()
    scored: bool = False
    discards: bool = False
    averages: Literal["always", "contextual", "pool", "never"] = "never"
    whole_videos: bool = False


@dataclass(frozen=True, kw_only=True)
class Ranking(_Named):
    """A way to rank visual tokens inside the language model, `(RankingInputs) -> (B, n)` scores or a set.

    Attributes:
        debias: whether scores are attention, so that `debias` has a meaning.
    """

    debias: bool = False


T = TypeVar("T")
F = TypeVar("F", bound=_Named)
Row = Stage1Method | Ranking | Schedule
_KINDS: dict[str, type[Row]] = {kind.__name__: kind for kind in (Stage1Method, Ranking, Schedule)}


def rows_of(text: str, module: str) -> Iterator[Row]:
    """The rows that a method's file has, which are calls with plain values at its top: `METHOD = Stage1Method(...)`.

    Args:
        text: the file.
        module: where its functions are imported from.
    """
    for statement in ast.parse(text).body:
        call = statement.value if isinstance(statement, ast.Assign) else None
        kind = _KINDS.get(getattr(call.func, "id", "")) if isinstance(call, ast.Call) else None
        if kind is not None and isinstance(call, ast.Call):
            fields: dict[str, Any] = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
            if issubclass(kind, _Named):
                fields["function"] = f"{module}:{fields['name']}"
            yield kind(**fields)


def _found(folder: str) -> Iterator[Row]:
    for file in files(ROOT).joinpath(folder).iterdir():
        name, dot, kind = file.name.partition(".")
        text = file.read_text(encoding="utf-8") if (dot, kind) == (".", "py") else ""
        if any(f" = {row}(" in text for row in _KINDS):
            yield from rows_of(text, f"{ROOT}.{folder}.{name}")


def _table(kind: type[Any], folder: str) -> dict[str, Any]:
    rows = [row for row in _found(folder) if isinstance(row, kind)]
    return {row.name: row for row in sorted(rows, key=lambda row: (row.order, row.name))}


STAGE1: dict[str, Stage1Method] = _table(Stage1Method, "stage1")
RANKINGS: dict[str, Ranking] = _table(Ranking, "stage2")
SCHEDULES: dict[str, Schedule] = _table(Schedule, "stage2")
BUILT_IN = frozenset({*STAGE1, *RANKINGS, *SCHEDULES})
_plugins: list[list[EntryPoint]] = []  # once they were looked for, those not yet imported


def at_encoder() -> list[str]:
    """Names of the stage 1 methods that merge and select tokens: the values of `DuetConfig.merging`."""
    return [row.name for row in STAGE1.values() if row.at == "encoder"]


def stage1_method(merging: Any) -> Stage1Method:
    """The row of a name or of a function; one of its own, without a name, for a function that has none.

    Raises:
        DuetError: an unknown name, a function that cannot be called as a stage 1 is, or anything else.
    """
    row = named(STAGE1, merging)
    if row is not None and row.at == "encoder":
        return row
    if not is_function(merging):
        raise _unknown("merging", merging, at_encoder(), "register_stage1")
    check_takes("merging", merging, STAGE1_TAKES)
    return _of_function(STAGE1, merging) or Stage1Method(name="", function=merging)


def ranking_method(ranking: Any) -> Ranking:
    """Return the row of a ranking, as `stage1_method` does for stage 1."""
    row = named(RANKINGS, ranking)
    if row is not None:
        return row
    if not is_function(ranking):
        raise _unknown("ranking", ranking, list(RANKINGS), "register_stage2")
    check_takes("ranking", ranking, RANKING_TAKES)
    return _of_function(RANKINGS, ranking) or Ranking(name="", function=ranking)


def _unknown(what: str, value: Any, known: list[str], register: str) -> DuetError:
    return DuetError(
        f"{what} {shown(value)} is unknown: choose one of {listed(known)}, or register it with duet_vlm.{register}."
    )


def named(table: Mapping[str, T], name: Any) -> T | None:
    """The row of a name, also of a plug-in that is installed; None for anything else."""
    if not isinstance(name, str):
        return None
    if name not in table:
        load_plugins()
    return table.get(name)


def is_function(value: Any) -> bool:
    """Whether it can be a method of one's own."""
    return callable(value) and not isinstance(value, type)


def called(function: Any) -> str:
    """What a sentence calls a function, or a method's name."""
    return repr(function) if isinstance(function, str) else short(getattr(function, "__name__", shown(function)))


def check_takes(what: str, function: Any, arguments: tuple[str, ...]) -> None:
    """Raises DuetError for a function that cannot be called with these arguments, by position."""
    try:
        signature(function).bind(*arguments)
    except TypeError:
        raise DuetError(
            f"{what} {called(function)} cannot be called with ({', '.join(arguments)}): give a function that takes "
            "these, in this order."
        ) from None
    except ValueError:  # some built-in ones do not tell
        return


def load_plugins() -> None:
    """Import what other packages offer as entry points of the group `duet_vlm.methods`, each once.

    Raises:
        DuetError: one that cannot be imported.
    """
    if not _plugins:
        _plugins.append(list(entry_points(group=GROUP)))
    waiting = _plugins[0]
    while waiting:
        one = waiting.pop()
        try:
            one.load()
        except Exception as error:  # it is anybody's code
            raise DuetError(
                f"the method plug-in {one.name!r} ({short(one.value)}) cannot be loaded ({reason(error)}): repair it, "
                "or uninstall its package."
            ) from error


def _of_function(table: Mapping[str, F], function: Any) -> F | None:
    home = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    return next((row for row in table.values() if row.function in (function, home)), None)
