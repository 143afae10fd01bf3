"""The `duet` command. Heavy imports happen inside the commands, so that help is immediate."""

from __future__ import annotations

from typing import Annotated

import typer

from ..checks.cli import check
from ..console.commands import DEBUG, Command, Commands
from ..evaluation.cli import evaluate
from ..serving.batch.cli import batch
from ..serving.cli import serve
from ..training.cli import train
from ..tuning.cli import tune
from .bench import bench
from .budget import budget
from .demo import app as demo
from .run import run

app = typer.Typer(
    name="duet",
    help="Compress the visual tokens of vision-language models: merge them at the encoder, drop them inside the "
    "language model.\n\nStart with:\n\n  duet run examples/scene.png --ask 'What color is the star?' --show kept.png",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    cls=Commands,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"duet-vlm {version('duet-vlm')}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            DEBUG,
            help="Show where an error comes from, and what libraries warn of; may stand behind the command, too.",
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command(cls=Command)(run)
app.command(cls=Command)(budget)
app.command(cls=Command)(bench)
app.command("eval", cls=Command)(evaluate)
app.command(cls=Command)(train)
app.command(cls=Command)(tune)
app.command(cls=Command)(check)
app.command(cls=Command)(serve)
app.command(cls=Command)(batch)
app.add_typer(demo, name="demo")


def main() -> None:
    app(prog_name="duet")


if __name__ == "__main__":
    main()
