"""What the commands say to the terminal: errors in a sentence, progress on stderr, figures as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import typer

from ..errors import DuetError
from ..inputs import files


@contextlib.contextmanager
def plain_errors(debug: bool = False) -> Iterator[None]:
    """What a user can put right is one sentence on stderr and exit code 2; all else is a bug and keeps its trace.

    Args:
        debug: print the trace of that, too.
    """
    try:
        yield
    except DuetError as error:
        if debug:
            traceback.print_exc()
        print(f"duet: {error}", file=sys.stderr)
        raise typer.Exit(2) from error


@contextlib.contextmanager
def status() -> Iterator[Any]:
    """A line on stderr that says what takes so long; call it with new text."""
    from rich.console import Console

    with Console(stderr=True).status("Loading torch and transformers") as spinner, no_bars():
        yield spinner.update


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Transformers' bars for every file are not shown; one line of ours is enough."""
    from transformers.utils import logging

    bars, hub = logging.is_progress_bar_enabled(), getLogger("huggingface_hub")
    level = hub.level
    logging.disable_progress_bar()
    hub.setLevel(ERROR)  # without a network it tells of every attempt
    try:
        yield
    finally:
        hub.setLevel(level)
        if bars:
            logging.enable_progress_bar()


def set_threads(threads: int | None) -> None:
    """Compute on so many threads of the CPU; torch's own number if None."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


class Bar:
    """How far some work is; `progress` makes it."""

    def __init__(self, update: Callable[..., None]):
        self._update, self._begun = update, 0

    def add(self, count: int = 1) -> None:
        """So many more pieces are done."""
        self._update(advance=count)

    def reach(self, done: int) -> None:
        """So many pieces are done."""
        self._update(completed=done)

    def begin(self, text: str) -> None:
        """The next piece begins, and this is what it is."""
        self._update(description=text, completed=self._begun)
        self._begun += 1


@contextlib.contextmanager
def progress(total: int, text: str = "Starting", shown: bool = True) -> Iterator[Bar]:
    """A bar on stderr for `total` pieces of work, gone when they are done; a file gets none of it."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = [*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn()]
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as drawn:
        yield Bar(partial(drawn.update, drawn.add_task(text, total=total)))


def console() -> Any:
    """For results, on stdout."""
    from rich.console import Console

    return Console()


def escape(text: str) -> str:
    """Text whose square brackets are no markup."""
    from rich.markup import escape

    return escape(text)


def check_json(file: Path | None) -> None:
    """Raises DuetError where `write_json` could not write."""
    if file is not None and file != files.STDOUT:
        files.check_writable(file, "figures")


def write_json(report: dict[str, Any], file: Path | None) -> None:
    """Write to a file, or to stdout for `-`."""
    if file is None:
        return
    text = json.dumps(report, indent=2) + "\n"
    if file == files.STDOUT:
        sys.stdout.write(text)
        return
    with files.writing(file, "figures"):
        file.write_text(text, encoding="utf-8")
