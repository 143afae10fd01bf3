"""Which settings a command line asks for: a method at a budget, or those that the model brings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import DuetError
from ..families import family_of
from ..presets import DuetConfig, preset, saved_config

SAVED = "saved"  # the method's name where a model brings its settings


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


def chosen(
    config: Any,
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
    family_of(config)
    saved, budget = getattr(config, "duet", None), tokens is not None or keep is not None
    if tokens is not None and keep is not None:
        raise DuetError(f"--tokens {tokens:g} and --keep {keep:g} are both a budget: give one of them.")
    if method == SAVED or (method is None and saved is not None and not budget):
        if saved is None:
            raise DuetError("method 'saved' is for models that bring settings, and this one has none: choose another.")
        if budget:
            raise DuetError("method 'saved' brings its budget: leave out --tokens and --keep, or choose another.")
        return Chosen(saved_config(config), SAVED, "the settings saved with the model")
    method = method or "duet"
    aside = "" if saved is None else "; the settings saved with the model were put aside"
    if method == "none":
        if budget:
            raise DuetError("method 'none' compresses nothing: leave out --tokens and --keep, or choose another.")
        return Chosen(DuetConfig(), method, f"nothing compressed{aside}")
    if budget:
        asked = f"--tokens {tokens:g}" if keep is None else f"--keep {keep:g}"
    elif default_keep is None:
        raise DuetError("there is no budget: give --tokens, an average per layer, or --keep, a fraction.")
    else:
        keep, asked = default_keep, "a third of the visual tokens (no budget was given)"
    with option_names():
        settings = preset(method, model=config, tokens=tokens, keep=keep, grid=grid)
    return Chosen(settings, method, f"{method}, {asked}{aside}")


@contextmanager
def option_names() -> Iterator[None]:
    """Errors that name an argument of Python's name the option of the command line instead."""
    try:
        yield
    except DuetError as error:
        text = re.sub(r"\b(keep|tokens|grid|tiles)=", r"--\1", str(error))
        raise type(error)(re.sub(r"^(keep|tokens|grid|tiles) (?=\S*\d)", r"--\1 ", text)) from error
