"""`duet batch`: its options and its output. Heavy imports happen inside, so that help is immediate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...console import terminal
from ...console.options import ConfigFile, Device, Dtype, JsonFile, Keep, Method, Model, Tokens
from ...console.tables import several
from ...evaluation.cli import stoppable
from ...inputs.choice import check_choice
from ...inputs.devices import check_dtype
from ...inputs.files import STDOUT, check_writable_folder
from ...inputs.model_folders import DEMO, brings_settings
from ...inputs.paths import check_file

if TYPE_CHECKING:
    from .request import BatchRequest

COUNTS = ("visual_tokens", "tokens_in", "tokens_avg", "tokens_last")  # of a line, and their means of a folder


def batch(
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="A JSONL manifest: question, image or video, and if wanted id, one object per line."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for the answers; the same command goes on with it.")
    ],
    model: Model = DEMO,
    method: Method = None,
    tokens: Tokens = None,
    keep: Keep = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that answer, each with the model; if not given one per GPU, or per machine without GPUs.",
            min=1,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time, in each worker.", min=1)] = 16,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.", min=1)] = 64,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="A running Ray cluster, or auto for this machine's; if not given, Ray is started "
            "on this machine and ends with the command.",
        ),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of each worker; its share of the CPUs if not given.", min=1)
    ] = None,
    json_file: JsonFile = None,
    config_file: ConfigFile = None,
) -> None:
    """Answer all records of a manifest with compressed visual tokens, on one machine or on many (Ray Data).

    Writes answers.jsonl: a line per record, with its answer and its visual tokens, or with the error. Stopped anywhere,
    the same command goes on: what has an answer is not request again, and what failed is.

    Without a budget a third of the visual tokens is kept, on average over the layers.

    Examples:

      duet batch --data questions.jsonl --model llava-hf/llava-1.5-7b-hf --tokens 192 --out answers

      duet batch --data questions.jsonl --model /shared/my-llava --keep 0.25 --address 10.0.0.1:6379 --out answers
    """
    terminal.check_json(json_file)
    check_writable_folder(out, "the answers")
    check_dtype(dtype)
    check_choice(method, tokens, keep, brings_settings(model), default=True)
    check_file(data, "manifest", "a JSONL file")
    with terminal.status():
        from .request import read_batch

        request = read_batch(data, model, method, tokens, keep, max_new_tokens, dtype, device)
        from .answering import answer_all
        from .cluster import cluster, share
        from .output import Output

        output = Output(out, request.settings, request.records, request.problems)
    with output, stoppable(out, True):
        total, left = len(request.records), len(output.left)
        if left < total:
            print(f"duet: {out} has {total - left} of {total} answers already.", file=sys.stderr)
        if left:
            # the bar first: Ray's own words must not pass through it
            with terminal.progress(left, "Answers") as bar, cluster(address) as ray:
                answer_all(ray, request.job, output, share(ray, workers, device, threads), batch_size, bar.add)
        lines = output.finish()
    report = summary(request, lines)
    terminal.write_json(report, json_file)
    if json_file != STDOUT:
        show(report, out)
    for line in [line for line in lines if "error" in line][:1]:
        what = f"record {line['id']!r}" if line["id"] is not None else f"line {line['line']}"
        print(
            f"duet: {several(report['failed'], 'record')} failed, for example {what}: {line['error']}", file=sys.stderr
        )
    if not report["answered"]:
        raise typer.Exit(1)


def summary(request: BatchRequest, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a folder whose manifest was answered, JSON-able."""
    names = {record.id for record in request.records}
    answers = [line for line in lines if line["id"] in names and "answer" in line]

    def mean(name: str) -> float | None:
        return sum(line[name] for line in answers) / len(answers) if answers else None

    counts = {name: mean(name) for name in COUNTS}
    failed = sum("error" in line for line in lines)
    return {
        **request.settings, "settings": request.words, "data": str(request.data), "answered": len(answers),
        "failed": failed, **counts,
    }  # fmt: skip


def show(report: dict[str, Any], out: Path) -> None:
    """The same for people, on stdout."""
    counts = ""
    if report["answered"]:
        shown = [f"{report[name]:.1f}" for name in COUNTS]
        counts = ": {} visual tokens, {} after stage 1, {} on average, {} in the last layer".format(*shown)
    print(f"{several(report['answered'], 'answer')} in {out / 'answers.jsonl'}")
    print(f"{report['settings']}{counts}")
