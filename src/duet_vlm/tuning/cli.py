"""`duet tune`: its options and its output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..config.methods import stages
from ..console import terminal
from ..console.options import (
    BatchSize,
    ConfigFile,
    Device,
    Dtype,
    JsonFile,
    KeepList,
    Limit,
    LongestAnswer,
    Methods,
    Model,
    Threads,
)
from ..errors import DuetError
from ..evaluation.cli import stoppable
from ..evaluation.suites import BUILT_IN
from ..inputs.devices import check_dtype
from ..inputs.files import STDOUT, check_writable_folder
from ..inputs.model_folders import DEMO
from ..inputs.paths import check_file
from .goal import Goal

NOTHING = 3  # exit code where no setting keeps what was asked


def tune(
    data: Annotated[
        str, typer.Option(metavar="FILE", help="Your questions: a JSONL manifest as duet eval takes it; demo; pages.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Folder for duet.json, the report and all answers; the same command goes on."
        ),
    ] = Path("tuned"),
    model: Model = DEMO,
    retain: Annotated[
        float | None, typer.Option(help="The share of the full model's accuracy to keep; 0.99 if nothing is given.")
    ] = None,
    agree: Annotated[
        float | None,
        typer.Option(help="Instead, the share of the full model's answers, with a fallback where the first is unsure."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="How sure the promise is to be.")] = 0.9,
    method: Methods = None,
    keep: KeepList = None,
    time_limit: Annotated[float | None, typer.Option(help="Minutes; what does not fit is left out.", min=0)] = None,
    limit: Limit = None,
    batch_size: BatchSize = 16,
    seed: Annotated[int, typer.Option(help="Of random methods, the split of the questions, and the intervals.")] = 0,
    max_new_tokens: LongestAnswer = None,
    dtype: Dtype = "auto",
    device: Device = None,
    threads: Threads = None,
    json_file: JsonFile = None,
    config_file: ConfigFile = None,
) -> None:
    """Find the cheapest method, budget and drop layers that keep what you ask on your own questions: docs/tune.md.

    Where a question has no answer, the full model's is the right one. Writes duet.json, which --config of every command
    takes, tune.json, pareto.png and report.html. Exit code 3: no setting keeps what was asked.

    Examples:

      duet tune --data mine.jsonl --model llava-hf/llava-1.5-7b-hf --retain 0.99 --out tuned

      duet tune --data mine.jsonl --model ./my-llava --agree 0.98 --method duet-plus --out tuned --time-limit 60
    """
    check_writable_folder(out, "the answers")
    terminal.check_json(json_file)
    check_dtype(dtype)
    if retain is not None and agree is not None:
        raise DuetError(f"--retain {retain:g} and --agree {agree:g} are two goals: give one of them.")
    share = agree if agree is not None else 0.99 if retain is None else retain
    goal = Goal(share, agree is not None, confidence)
    for name in method or ():
        stages(name)
    if data not in BUILT_IN:
        check_file(Path(data), "manifest", "a JSONL file, 'demo' or 'pages'")
    with terminal.status() as status:
        from .request import read_request

        terminal.set_threads(threads)
        request = read_request(
            model, data, methods=method, keep=keep, limit=limit, dtype=dtype, device=device, status=status
        )
    for problem in request.problems:
        print(f"duet: {problem}", file=sys.stderr)
    from .tune import tune as run

    total = len(request.records) * (len(request.runs) + 1)
    with stoppable(out, True), terminal.progress(total, "Answers, at most", True) as bar:
        results = run(
            request.model, request.processor, request.records, request.runs, out, goal, batch_size=batch_size,
            seed=seed, max_new_tokens=max_new_tokens, minutes=time_limit, problems=request.problems,
            about=request.about, advance=bar.add,
        )  # fmt: skip
    terminal.write_json(results, json_file)
    if json_file != STDOUT:
        from .summary import sentence

        terminal.console().print(terminal.escape(sentence(results)), highlight=False)
        files = "" if results["chosen"] is None else "duet.json, "
        terminal.console().print(f"Written to {out}: {files}tune.json, pareto.png, report.html", highlight=False)
    if results["chosen"] is None:
        raise typer.Exit(NOTHING)
