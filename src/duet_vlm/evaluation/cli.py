"""`duet eval`: its options and its output."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import terminal
from ..console.options import (
    BatchSize,
    ConfigFile,
    CoverageList,
    Device,
    Dtype,
    JsonFile,
    KeepList,
    Limit,
    LongestAnswer,
    Methods,
    Model,
    Threads,
    TokensList,
)
from ..console.tables import several
from ..errors import DuetError
from ..inputs.choice import check_choices
from ..inputs.devices import check_dtype
from ..inputs.files import STDOUT, check_writable_folder
from ..inputs.model_folders import DEMO, brings_settings
from ..inputs.paths import check_file
from .suites import BUILT_IN


def evaluate(
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the answers and the report; with more methods, budgets or questions it goes on.",
        ),
    ],
    model: Model = DEMO,
    data: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="demo for 5,000 questions about drawn scenes, pages for 2,400 about drawn receipts, tables, forms, "
            "plots and screens, or a JSONL manifest.",
        ),
    ] = DEMO,
    method: Methods = None,
    tokens: TokensList = None,
    keep: KeepList = None,
    coverage: CoverageList = None,
    limit: Limit = None,
    batch_size: BatchSize = 16,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first thing that cannot be evaluated, with exit code 2.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of random methods and of the bootstrap.")] = 0,
    max_new_tokens: LongestAnswer = None,
    dtype: Dtype = "auto",
    device: Device = None,
    threads: Threads = None,
    json_file: JsonFile = None,
    config_file: ConfigFile = None,
) -> None:
    """Compare methods on one model and one data set: accuracy, what is retained, tokens, KV bytes and times.

    Writes results.json, answers.jsonl, pareto.png, categories.png and report.html. Started again, it goes on where it
    was stopped, and with more methods, budgets or questions it asks only what is missing. Several
    processes: accelerate launch --multi_gpu --num_processes 2 -m duet_vlm.evaluation ...

    Examples:

      duet eval --method none duet visionzip random --keep 0.33 0.22 0.11 --limit 900 --out eval

      duet eval --model llava-hf/llava-1.5-7b-hf --data questions.jsonl --method duet fastv --tokens 192 64 --out eval
    """
    check_writable_folder(out, "the answers")
    terminal.check_json(json_file)
    check_dtype(dtype)
    problems = check_choices(method, tokens or [], keep or [], brings_settings(model), False, coverage or [])
    if strict and problems:
        raise DuetError(f"{problems[0]} (--strict stops here)")
    if data not in BUILT_IN:
        check_file(Path(data), "manifest", "a JSONL file, 'demo' or 'pages'")
    with terminal.status() as status:
        from ..console.processes import Process
        from .request import read_request

        terminal.set_threads(threads)
        process = Process.this()
        request = read_request(
            model, data, methods=method, tokens=tokens or [], keep=keep or [], limit=limit, strict=strict, dtype=dtype,
            device=device, process=process, status=status, coverage=coverage or [],
        )  # fmt: skip
    if process.is_main:
        for problem in request.problems:
            print(f"duet: {problem}", file=sys.stderr)
    from .evaluate import evaluate as run

    total = len(request.records) * len(request.runs)
    visible = process.is_main
    with stoppable(out, visible), terminal.progress(total // process.count, "Answers", visible) as bar:
        results = run(
            request.model, request.processor, request.records, request.runs, out, batch_size=batch_size, seed=seed,
            max_new_tokens=max_new_tokens, strict=strict, problems=request.problems, about=request.about,
            process=process, advance=bar.add, on_start=partial(going_on, out, total, visible),
        )  # fmt: skip
    if results is not None:
        terminal.write_json(results, json_file)
        if json_file != STDOUT:
            show(results, out)


def going_on(out: Path, total: int, is_main: bool, answers: int) -> None:
    """Say what a folder has already."""
    if answers and is_main:
        rest = "; only the report is made again" if answers == total else ""
        print(f"duet: {out} has {answers} of {total} answers already{rest}.", file=sys.stderr)


@contextlib.contextmanager
def stoppable(out: Path, is_main: bool) -> Iterator[None]:
    """Ctrl-C says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        if is_main:
            print(f"duet: stopped; the same command goes on with the answers in {out}.", file=sys.stderr)
        raise typer.Exit(130) from error


def show(results: dict[str, Any], out: Path) -> None:
    """Tables on stdout."""
    from .plots import CATEGORIES, PARETO
    from .table import WIDTH, more_tables, result_table

    console = terminal.console()
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    for table in (result_table(results), *more_tables(results)):
        console.print(table)
    skipped = results["skipped"]
    if skipped:
        records = sum(one["line"] is not None or one["id"] is not None for one in skipped)
        others = len(skipped) - records
        left = [f"{records} of {several(records + results['questions'], 'record')}"] if records else []
        left += [several(others, "method at a budget")] if others else []
        console.print(f"Not evaluated: {' and '.join(left)}; see results.json.", highlight=False)
    drawn = [name for name in (PARETO, CATEGORIES) if name != CATEGORIES or results["runs"][0]["categories"]]
    files = ", ".join(["results.json", "answers.jsonl", *drawn, "report.html"])
    console.print(f"Written to {out}: {files}", highlight=False)
