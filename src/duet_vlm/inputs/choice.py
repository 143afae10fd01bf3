"""Which settings a command line asks for: a method at a budget, or those that the model brings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config.methods import stages
from ..config.values import check_budget
from ..errors import DuetError
from ..presets import DuetConfig, preset, saved_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SAVED = "saved"  # the method's name where a model brings its settings
NO_BUDGET = "there is no budget: give --tokens, an average per layer, or --keep, a fraction."


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
    method: str | None, tokens: float | None, keep: float | None, brings: bool | None, default: bool = False
) -> None:
    """Refuse what no model could be asked for, before one is looked at; loads neither torch nor transformers.

    Args:
        method, tokens, keep: as `chosen` takes them.
        brings: whether the model brings settings; None where that is not known yet.
        default: whether there is a budget where none is given.

    Raises:
        DuetError: an unknown method, or a budget that is missing, doubled, or none at all.
    """
    budget = tokens is not None or keep is not None
    if tokens is not None and keep is not None:
        raise DuetError(f"--tokens {tokens:g} and --keep {keep:g} are both a budget: give one of them.")
    if method == SAVED or (method is None and brings and not budget):
        if brings is False:
            raise DuetError("method 'saved' is for models that bring settings, and this one has none: choose another.")
        if budget:
            raise DuetError("method 'saved' brings its budget: leave out --tokens and --keep, or choose another.")
        return
    if method == "none":
        if budget:
            raise DuetError("method 'none' compresses nothing: leave out --tokens and --keep, or choose another.")
        return
    with option_names():
        stages(method or "duet")
        check_budget(tokens, keep)
    if not budget and not default and not (method is None and brings is None):
        raise DuetError(NO_BUDGET)


def check_choices(
    methods: Sequence[str] | None, tokens: Sequence[float], keep: Sequence[float], brings: bool | None, default: bool
) -> list[str]:
    """The same of several methods at several budgets, where one that cannot be leaves the others.

    Returns:
        What cannot be, a sentence each, if anything is left.

    Raises:
        DuetError: budgets of both kinds or none, something twice, or nothing that can be.
    """
    for kind, listed in (("method", methods or ()), ("budget", tokens), ("budget", keep)):
        for value in listed:
            if list(listed).count(value) > 1:
                raise DuetError(f"{kind} {value} is given twice: give each once.")
    if tokens and keep:
        raise DuetError("--tokens and --keep are both budgets: give one of them.")
    budgets: list[tuple[float | None, float | None]] = [*((n, None) for n in tokens), *((None, x) for x in keep)]
    if methods is None:
        if not budgets and brings is not False:
            return []
        methods = ["duet"]
    compressed = [method for method in methods if method not in ("none", SAVED)]
    if compressed and not budgets and not default:
        raise DuetError(NO_BUDGET)
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
                    check_budget(*budget)
                good += 1
            except DuetError as error:
                problems.append(f"{method} at {budget[0] or budget[1]:g}: {error}")
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
) -> Chosen:
    """The settings that a command line asks for; `grid` is the image's or frame's, where images differ in size.

    Without a method and a budget these are the settings that the model brings in `config.duet`.

    Raises:
        ValueError: an unsupported model, an unknown method, or a budget that is missing, doubled or out of reach.
    """
    from ..families import family_of

    family_of(config)
    saved, budget = getattr(config, "duet", None), tokens is not None or keep is not None
    check_choice(method, tokens, keep, saved is not None, default_keep is not None)
    if method == SAVED or (method is None and saved is not None and not budget):
        return Chosen(saved_config(config), SAVED, "the settings saved with the model")
    method = method or "duet"
    aside = "" if saved is None else "; the settings saved with the model were put aside"
    if method == "none":
        return Chosen(DuetConfig(), method, f"nothing compressed{aside}")
    if budget:
        budget_words = f"--tokens {tokens:g}" if keep is None else f"--keep {keep:g}"
    else:
        keep, budget_words = default_keep, "a third of the visual tokens (no budget was given)"
    with option_names():
        settings = preset(method, model=config, tokens=tokens, keep=keep, grid=grid)
    return Chosen(settings, method, f"{method}, {budget_words}{aside}")


@contextmanager
def option_names() -> Iterator[None]:
    """Errors that name an argument of Python's name the option of the command line instead."""
    try:
        yield
    except DuetError as error:
        text = re.sub(r"\b(keep|tokens|grid|tiles)=", r"--\1", str(error))
        raise type(error)(re.sub(r"^(keep|tokens|grid|tiles) (?=\S*\d)", r"--\1 ", text)) from error
