"""`duet check`: its options and its output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..console import terminal

DEMO = "demo"


def check(
    model: Annotated[
        str, typer.Option(help="A folder written by save_pretrained, a hub id, or demo for the demonstration model.")
    ] = DEMO,
    method: Annotated[
        str | None, typer.Option(help="Settings to try: duet, visionzip, ...; by default the model's own, or duet.")
    ] = None,
    tokens: Annotated[float | None, typer.Option(help="Their budget: visual tokens per layer on average.")] = None,
    keep: Annotated[float | None, typer.Option(help="Their budget as a fraction; by default a third.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto for what was saved.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; the fastest one there is if not given.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here; - is stdout.")
    ] = None,
) -> None:
    """Try the library's promises on a model, on this machine: a table, and exit status 1 if one of them fails.

    Asks about drawn pictures with the model's own processor; needs no data. What each line means: docs/check.md.

    Examples:

      duet check

      duet check --model llava-hf/llava-1.5-7b-hf --device cuda --dtype bfloat16

      duet check --model ./my-llava --method visionzip --keep 0.25 --json check.json
    """
    with terminal.status() as status:
        from ..inputs.checkpoints import read_config, read_processor, read_weights
        from ..inputs.choice import chosen
        from ..inputs.devices import check_device, check_dtype
        from ..inputs.prepared import DEFAULT_KEEP
        from .checking import check as run

        terminal.check_json(json_file)
        check_dtype(dtype)
        device, settings = check_device(device), None
        config = read_config(model)
        if method is not None or tokens is not None or keep is not None:
            settings = chosen(config, method, tokens, keep, DEFAULT_KEEP).config
        status("Loading the processor")
        processor = read_processor(model)
        status("Loading the model")
        network = read_weights(model, dtype, device)
        report = run(network, processor, settings, status=lambda promise: status(f"Checking: {promise}"))
    figures = {"checked": "the demonstration model" if model == DEMO else model, **report.to_dict()}
    terminal.write_json(figures, json_file)
    if json_file != Path("-"):
        from ..console.tables import check_table

        terminal.console().print(check_table(figures))
    for line in report.failing:
        print(f"duet: does not hold: {line.promise}: {line.note}", file=sys.stderr)
    if report.failing:
        raise typer.Exit(1)
