"""`python -m recipes.pages`, from the repository's root: train the model for pages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from duet_vlm.console.commands import Command
from duet_vlm.console.terminal import plain_errors
from duet_vlm.inputs.files import check_writable_folder

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(cls=Command)
def train(
    out: Annotated[Path, typer.Option(help="Folder for the model (a from_pretrained folder) and its checkpoints.")],
    steps_scale: Annotated[
        float, typer.Option(min=0.0001, help="Multiply the number of training steps; 1 is the shipped recipe.")
    ] = 1.0,
    processes: Annotated[
        int, typer.Option(min=1, max=8, help="Training processes, one core each; 2 is the shipped recipe.")
    ] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints in OUT.")] = False,
) -> None:
    """Train the model for pages from scratch, or resume. Four stages: vision, warm-up, few tokens, all of them."""
    with plain_errors():
        check_writable_folder(out, "the model")
        from . import training

        try:
            training.train(out, training.Recipe().scaled(steps_scale), processes, resume)
        except KeyboardInterrupt as error:
            print("duet: stopped; go on from the last checkpoint with --resume.", file=sys.stderr)
            raise typer.Exit(130) from error
        typer.echo(f"Saved the model in {out}. Measure it with: duet eval --model {out} --data pages")


if __name__ == "__main__":
    app(prog_name="python -m recipes.pages")
