"""What the commands say to the terminal: errors in a sentence, progress on stderr, figures as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Iterator
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

    with Console(stderr=True).status("Loading torch and transformers") as shown, no_bars():
        yield shown.update


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


@contextlib.contextmanager
def progress(total: int) -> Iterator[Any]:
    """A bar on stderr for `total` pieces of work; call it with a description before each."""
    from rich.console import Console
    from rich.progress import Progress, TimeRemainingColumn

    columns = [*Progress.get_default_columns()[:-1], TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Starting", total=total)
        begun = iter(range(total + 1))
        yield lambda text: bar.update(task, description=text, completed=next(begun))


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
        files.check_file(file, "figures")


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
