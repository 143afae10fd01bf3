"""`make results`: the published tables of all methods on a built-in benchmark, and the ablations on scenes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import terminal
from ..console.processes import Process
from ..inputs.model_folders import DEMO

KEEP = (0.33, 0.22, 0.11, 0.05)
ABLATION_KEEP = 0.22
BATCH = 36


def main(
    work: Annotated[Path, typer.Option(help="Folder for all answers; the same command goes on there.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures and plots.")],
    page: Annotated[Path, typer.Option(help="Markdown file to write the tables to.")],
    data: Annotated[str, typer.Option(help="demo or pages.")] = DEMO,
    model: Annotated[str, typer.Option(help="Folder of another copy of that benchmark's model.")] = "",
    limit: Annotated[int, typer.Option(help="Questions, an equal number per skill.", min=9)] = 1800,
    seed: Annotated[int, typer.Option(help="Of random methods and of the bootstrap.")] = 0,
) -> None:
    """Evaluate every method at four budgets, and on scenes DUET-VLM's settings one at a time."""
    process = Process.this()
    with terminal.plain_errors():
        results = evaluate_all(data, model or data, work, limit, seed, process)
        if not process.is_main:
            return
        out.mkdir(parents=True, exist_ok=True)
        for name, figures in results.items():
            (out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            for plot in ("pareto", "categories"):
                shutil.copy(work / name / f"{plot}.png", out / f"{name}-{plot}.png")
        from .markdown import FULL_TOKENS, results_page

        kind = data if not model else FULL_TOKENS
        text = results_page(kind, results["methods"], results.get("ablations"), out.name)
        page.write_text(text, encoding="utf-8")
    typer.echo(f"Written: {out} and {page}; all answers and a page with examples are in {work}.")


def evaluate_all(data: str, model: str, work: Path, limit: int, seed: int, process: Process) -> dict[str, Any]:
    """{"methods", "ablations"} -> what `evaluate` returns, which is None in every process but the first."""
    from ..config.methods import names
    from ..config.registry import STAGE1
    from .ablations import ablation_runs
    from .evaluate import evaluate
    from .request import read_request

    pictures = [  # the towers of both models take them whole
        name for name in names() if name not in STAGE1 or (STAGE1[name].budgeted and not STAGE1[name].whole_videos)
    ]
    # the first is what the others are compared with
    methods = ["duet-plus", *(name for name in pictures if name != "duet-plus"), "visionzip+fastv", "divprune+duet"]
    request = read_request(
        model, data, methods=methods, tokens=[], keep=KEEP, limit=limit, strict=False, dtype="float32", device=None,
        process=process,
    )  # fmt: skip
    tables = {"methods": (request.runs, request.problems)}
    if data == DEMO:
        tables["ablations"] = ablation_runs(request.model.config, ABLATION_KEEP), []
    results = {}
    for name, (runs, problems) in tables.items():
        with terminal.progress(limit * len(runs) // process.count, "Answers", process.is_main) as bar:
            results[name] = evaluate(
                request.model, request.processor, request.records, runs, work / name, batch_size=BATCH, seed=seed,
                problems=problems, about=request.about, process=process, advance=bar.add,
            )  # fmt: skip
    return results


if __name__ == "__main__":
    typer.run(main)
