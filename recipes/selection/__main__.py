"""`python -m recipes.selection`: candidates for `duet-plus` on validation questions of a suite.

python -m recipes.selection --suite demo --limit 900 --keep 0.22 0.11 0.05 --out build/selection-demo \
    --json results/selection/demo.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from duet_vlm import DuetConfig
from duet_vlm.console.terminal import plain_errors
from duet_vlm.demo import evaluate as scenes
from duet_vlm.demo.model import load as load_demo
from duet_vlm.evaluation.evaluate import evaluate
from duet_vlm.evaluation.records import Record
from duet_vlm.evaluation.runs import Run
from duet_vlm.pages import splits as pages
from duet_vlm.pages.model import load as load_pages
from recipes.selection.candidates import candidates, register

BATCH = 36
SUITES: dict[str, tuple[Callable[..., Any], Callable[[int], Iterator[tuple[Any, list[Any]]]]]] = {
    "demo": (load_demo, partial(scenes.examples, scenes.VALIDATION_SEED)),
    "pages": (load_pages, partial(pages.examples, pages.VALIDATION_SEED)),
}


def main(
    suite: Annotated[str, typer.Option(help="demo or pages.")],
    out: Annotated[Path, typer.Option(help="Folder for all answers; the same command goes on there.")],
    json_file: Annotated[Path, typer.Option("--json", help="File for the figures.")],
    limit: Annotated[int, typer.Option(help="Questions, an equal number per skill.")] = 900,
    keep: Annotated[list[float], typer.Option(help="Budgets, as fractions.")] = [0.22, 0.11, 0.05],  # noqa: B006
    only: Annotated[list[str], typer.Option(help="Names of candidates; all by default.")] = [],  # noqa: B006
    model: Annotated[str | None, typer.Option(help="Folder of another copy of the suite's model.")] = None,
) -> None:
    """Ask every candidate; `out` holds all answers, `json_file` the figures."""
    with plain_errors():
        read, drawn = SUITES[suite]
        loaded, processor = read(model)
        records = [
            Record(f"{number:03d}-{q.skill}", q.text, (q.answer,), image, None, f"{number:03d}", q.skill)
            for number, (picture, questions) in enumerate(drawn(limit))
            for image in [Image.fromarray(picture.image)]
            for q in questions
        ]
        register()
        found = [candidates(loaded, share, only) for share in keep]
        runs = [Run("none", DuetConfig()), *(run for some, _ in found for run in some)]
        for problem in (problem for _, some in found for problem in some):
            typer.echo(problem)
        results = evaluate(loaded, processor, records, runs, out, batch_size=BATCH, seed=0)
        json_file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
