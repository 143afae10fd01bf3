"""`python -m recipes.pages`, from the repository's root: train the model for pages."""

from __future__ import annotations

import sys

import typer

from duet_vlm.console.commands import Command
from duet_vlm.console.terminal import plain_errors
from duet_vlm.inputs.files import check_writable_folder
from recipes.demo.commands import ModelFolder, Processes, Resume, StepsScale

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(cls=Command)
def train(
    out: ModelFolder,
    steps_scale: StepsScale = 1.0,
    processes: Processes = 2,
    resume: Resume = False,
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
