"""Which settings a command line asks for: a method at a budget, or those that the model brings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..config.budget_rule import NONE, SAVED, WITHOUT_BUDGET, Budget, is_file, without_budget
from ..config.methods import stages
from ..errors import DuetError
from ..presets import DuetConfig, preset, saved_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Chosen:
    """The settings that a command line asks for, and where they come from.

    Attributes:
        config: what is applied.
        method: its name; `SAVED` for the settings that a model brings.
        words: the same for people: "duet, --keep 0.3".
    """

    config: DuetConfig
    method: str
    words: str


def check_choice(
    method: str | None, tokens: float | None, keep: float | None, brings: bool | None, default: bool = False,
    coverage: float | None = None,
) -> None:  # fmt: skip
    """Refuse what no model could be asked for, before one is looked at; loads neither torch nor transformers.

    Args:
        method, tokens, keep, coverage: as `chosen` takes them.
        brings: whether the model brings settings; None where that is not known yet.
        default: whether there is a budget where none is given.

    Raises:
        DuetError: an unknown method, or a budget that is missing, doubled, or none at all.
    """
    if method is None and brings and tokens is None and keep is None and coverage is None:
        method = SAVED
    if method == SAVED and brings is False:
        raise DuetError("method 'saved' is for models that bring settings, and this one has none: choose another.")
    if method is not None and is_file(method):
        DuetConfig.load(method)  # refuses a file that is none
    elif method != SAVED:
        stages(method or "duet")
    with option_names():
        needed = not default and not (method is None and brings is None)
        Budget.parse(method or "duet", tokens, keep, coverage, needed=needed)


def check_choices(
    methods: Sequence[str] | None, tokens: Sequence[float], keep: Sequence[float], brings: bool | None, default: bool,
    coverage: Sequence[float] = (),
) -> list[str]:  # fmt: skip
    """The same of several methods at several budgets, where one that cannot be leaves the others.

    Returns:
        What cannot be, a sentence each, if anything is left.

    Raises:
        DuetError: budgets of both kinds or none, something twice, or nothing that can be.
    """
    for kind, listed in (("method", methods or ()), ("budget", tokens), ("budget", keep), ("budget", coverage)):
        for value in listed:
            if list(listed).count(value) > 1:
                raise DuetError(f"{kind} {value} is given twice: give each once.")
    budgets = Budget.several(tokens, keep, coverage)
    if methods is None:
        if not budgets and brings is not False:
            return []
        methods = ["duet"]
    for file in filter(is_file, methods):
        DuetConfig.load(file)
    compressed = [method for method in methods if without_budget(method) is None]
    with option_names():
        if sum(map(bool, (tokens, keep, coverage))) > 1:
            Budget.parse("duet", *(values[0] if values else None for values in (tokens, keep, coverage)))
        if compressed and not budgets and not default:
            Budget.parse(compressed[0], None, None)
    problems, good = list[str](), len(methods) - len(compressed)
    for method in compressed:
        try:
            stages(method)
        except DuetError as error:
            problems.append(str(error))
            continue
        good += not budgets
        for budget in budgets:
            try:
                with option_names():
                    Budget.parse(method, budget.tokens, budget.keep, budget.coverage)
                good += 1
            except DuetError as error:
                problems.append(f"{method} at {budget.value:g}: {error}")
    if not good and problems:
        raise DuetError(problems[0])
    return problems


def chosen(
    config: PreTrainedConfig,
    method: str | None,
    tokens: float | None,
    keep: float | None,
    default_keep: float | None = None,
    grid: tuple[int, ...] | None = None,
    audio_keep: float | Literal["auto"] | None = None,
    coverage: float | None = None,
    history: float | None = None,
) -> Chosen:
    """The settings that a command line asks for; `grid` is the image's or frame's, where images differ in size.

    Without a method and a budget these are the settings that the model brings in `config.duet`.

    Raises:
        ValueError: an unsupported model, an unknown method, or a budget that is missing, doubled or out of reach.
    """
    from ..families import family_of

    family_of(config)
    saved = getattr(config, "duet", None)
    given = any(one is not None for one in (tokens, keep, coverage))
    check_choice(method, tokens, keep, saved is not None, default_keep is not None, coverage)
    own = method == SAVED or (method is None and saved is not None and not given)
    for option, value in (("--audio-keep", audio_keep), ("--history", history)):
        if value is not None and (own or method == NONE or is_file(method)):
            raise DuetError(f"{option} is for methods at a budget: leave it out, or give --keep or --tokens.")
    if own:
        return Chosen(saved_config(config), SAVED, "the settings saved with the model")
    method = method or "duet"
    aside = "" if saved is None else "; the settings saved with the model were put aside"
    if is_file(method):
        return Chosen(DuetConfig.load(method), method, f"the settings in {method}{aside}")
    if method == NONE:
        return Chosen(DuetConfig(), method, f"nothing compressed{aside}")
    if method in WITHOUT_BUDGET:
        with option_names():
            return Chosen(preset(method, model=config, grid=grid, audio_keep=audio_keep), method, f"{method}{aside}")
    if given:
        kinds = (("tokens", tokens), ("keep", keep), ("coverage", coverage))
        budget_words = next(f"--{name} {value:g}" for name, value in kinds if value is not None)
    else:
        keep, budget_words = default_keep, "a third of the visual tokens (no budget was given)"
    with option_names():
        more = {} if history is None else {"history": history}
        settings = preset(
            method, model=config, tokens=tokens, keep=keep, coverage=coverage, grid=grid, audio_keep=audio_keep, **more
        )
    older = "" if history is None else f", --history {history:g}"
    return Chosen(settings, method, f"{method}, {budget_words}{older}{aside}")


@contextmanager
def option_names(before: str = "--") -> Iterator[None]:
    """Errors that name an argument of Python's name what a user wrote instead: `before` and the argument's name."""
    try:
        yield
    except DuetError as error:
        text = re.sub(r"\b(keep|tokens|coverage|grid|tiles|seconds)=", rf"{before}\1", str(error))
        raise type(error)(
            re.sub(r"(^|and )(keep|tokens|coverage|history|grid|tiles) (?=\S*\d)", rf"\1{before}\2 ", text)
        ) from error
