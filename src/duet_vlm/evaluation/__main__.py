"""`python -m duet_vlm.evaluation ...` is `duet eval ...`, for launchers that start modules."""

import sys
from typing import Annotated

import typer

from ..console.commands import DEBUG, Command, Commands
from .cli import evaluate

app = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("eval", cls=Command)(evaluate)


@app.callback()
def options(debug: Annotated[bool, typer.Option(DEBUG)] = False) -> None:
    """`duet` with one command."""


app(["eval", *sys.argv[1:]], prog_name="duet")
