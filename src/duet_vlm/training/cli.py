"""`duet train`. Heavy imports happen inside the command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..console import terminal
from ..console.processes import Process
from ..errors import DuetError


def train(
    config: Annotated[Path, typer.Option(metavar="FILE", help="The settings, in YAML; see docs/training.md.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the output folder, step for step.")
    ] = False,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="List the broken records and train without them.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Check the settings and every record, and say what would be done; no weights."),
    ] = False,
) -> None:
    """Fine-tune a model with its visual tokens compressed.

    The data are conversations as LLaVA or as chat messages write them, in JSON or JSON lines. Every record is checked
    first. OUTPUT gets checkpoint-N folders, and at the end model (for from_pretrained) and, with train: lora, adapter.

    Examples:

      duet train --config examples/train.yaml

      duet train --config examples/train.yaml --resume

      accelerate launch --num_processes 8 --no_python duet train --config eight_gpus.yaml
    """
    is_main = Process.this().is_main
    with _once(is_main), _parting(), terminal.no_bars():
        _needed()
        from .command import prepare_training
        from .settings import read_settings

        notes: list[str] = []
        settings = read_settings(config)
        with _stoppable(settings.output, is_main, check):
            run = prepare_training(
                settings, resume, skip_broken, partial(_bar, is_main), fresh=check,
                tell=notes.append if check else None,
            )  # fmt: skip
        if is_main:
            for broken in run.checked.broken:
                print(f"duet: left out: {broken}", file=sys.stderr)
            print(f"{len(run.dataset)} records are good.", file=sys.stderr)
        if check:
            from .plan import plan

            if is_main:
                print(plan(run))
                for note in notes:
                    print(f"duet: {note}: see to it where you train.", file=sys.stderr)
            return
        from .command import finished
        from .command import train as start

        done = finished(run)
        if done is not None:
            if is_main:
                print(f"Finished already: {done}. Nothing was changed.")
            return
        with _stoppable(settings.output, is_main, check):
            target = start(run)
    if is_main:
        print(f"Saved in {target}. Compress it again with: duet_vlm.apply(model, tokenizer=processor)")


@contextlib.contextmanager
def _stoppable(output: str, is_main: bool, check: bool) -> Iterator[None]:
    """Ctrl-C says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        from .resuming import last_checkpoint

        last = last_checkpoint(Path(output).expanduser())
        if check:
            left = "start the check again"
        elif last is None:
            left = "there is no checkpoint yet, so start it again"
        else:
            left = f"go on from {last.name} with --resume"
        if is_main:
            print(f"duet: stopped; {left}.", file=sys.stderr)
        raise typer.Exit(130) from error


@contextlib.contextmanager
def _once(is_main: bool) -> Iterator[None]:
    """What a user can put right is said by one process, the list of broken records before it."""
    try:
        yield
    except DuetError as error:
        if not is_main:
            raise typer.Exit(2) from error
        for broken in getattr(error, "broken", []):
            print(broken, file=sys.stderr)
        raise


@contextlib.contextmanager
def _parting() -> Iterator[None]:
    """Processes leave their group before they end: torch aborts one that ends while the group's threads still run."""
    from torch import distributed

    joined = distributed.is_available() and distributed.is_initialized()
    yield
    if not joined and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _needed() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("accelerate", "peft", "pydantic", "yaml") if find_spec(name) is None]
    if missing:
        raise DuetError(f"training needs {', '.join(missing)}: install it with pip install 'duet-vlm[train]'.")


@contextlib.contextmanager
def _bar(first: bool, total: int) -> Iterator[Callable[[int], None]]:
    with terminal.progress(total, "Checking the records", first) as bar:
        yield bar.reach
