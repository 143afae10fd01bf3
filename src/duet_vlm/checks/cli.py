"""`duet check`: its options and its output."""

from __future__ import annotations

import sys

import typer

from ..console import terminal
from ..console.options import ConfigFile, Device, Dtype, JsonFile, Keep, Method, Model, Threads, Tokens
from ..inputs.choice import check_choice, chosen
from ..inputs.devices import check_device, check_dtype
from ..inputs.files import STDOUT
from ..inputs.model_folders import DEMO, brings_settings
from ..inputs.prepared import DEFAULT_KEEP


def check(
    model: Model = DEMO,
    method: Method = None,
    tokens: Tokens = None,
    keep: Keep = None,
    dtype: Dtype = "auto",
    device: Device = None,
    threads: Threads = None,
    json_file: JsonFile = None,
    config_file: ConfigFile = None,
) -> None:
    """Try the library's promises on a model, on this machine: a table, and exit status 1 if one of them fails.

    Asks about drawn pictures with the model's own processor; needs no data. What each line means: docs/check.md.

    Examples:

      duet check

      duet check --model llava-hf/llava-1.5-7b-hf --device cuda --dtype bfloat16

      duet check --model ./my-llava --method visionzip --keep 0.25 --json check.json
    """
    terminal.check_json(json_file)
    check_dtype(dtype)
    check_choice(method, tokens, keep, brings_settings(model), default=True)
    with terminal.status() as status:
        from ..inputs.checkpoints import read_config, read_processor, read_weights
        from .checking import check as run

        terminal.set_threads(threads)
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
    if json_file != STDOUT:
        from ..console.tables import check_table

        terminal.console().print(check_table(figures))
    for line in report.failing:
        print(f"duet: does not hold: {line.promise}: {line.note}", file=sys.stderr)
    if report.failing:
        raise typer.Exit(1)
