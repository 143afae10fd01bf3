"""`python -m duet_vlm.evaluation ...` is `duet eval ...`, for launchers that start modules."""

import sys
from typing import Annotated

import typer

from ..console import terminal
from .cli import evaluate

app = typer.Typer(cls=terminal.Commands, add_completion=False, pretty_exceptions_enable=False)
app.command("eval")(evaluate)


@app.callback()
def options(debug: Annotated[bool, typer.Option(terminal.DEBUG)] = False) -> None:
    """`duet` with one command."""


app(["eval", *sys.argv[1:]], prog_name="duet")
