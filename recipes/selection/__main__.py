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

from duet_vlm import Drop, DuetConfig
from duet_vlm.console.terminal import plain_errors
from duet_vlm.demo import evaluate as scenes
from duet_vlm.demo.model import load as load_demo
from duet_vlm.evaluation.ablations import nearest
from duet_vlm.evaluation.evaluate import evaluate
from duet_vlm.evaluation.records import Record
from duet_vlm.evaluation.runs import Run
from duet_vlm.families import facts_of
from duet_vlm.pages import splits as pages
from duet_vlm.pages.model import load as load_pages

BATCH = 36
SUITES: dict[str, tuple[Callable[..., Any], Callable[[int], Iterator[tuple[Any, list[Any]]]]]] = {
    "demo": (load_demo, partial(scenes.examples, scenes.VALIDATION_SEED)),
    "pages": (load_pages, partial(pages.examples, pages.VALIDATION_SEED)),
}
NAMED = (
    "duet", "visionzip", "divprune", "pyramiddrop", "random", "scope", "mmr", "tops", "scope+duet", "divprune+duet",
    "mmr+duet",
)  # fmt: skip
# options behind scope, all tokens chosen or a sixth of them merged
OPTIONS: dict[str, dict[str, Any]] = {
    "scope": {},
    "scope, query all": {"query": "all"},
    "scope, positions kept": {"positions": "keep"},
    "scope, rest": {"rest": True},
    "scope, rest, proportional": {"rest": True, "proportional": True},
    "divprune": {"merging": "divprune"},
    "mmr": {"merging": "mmr"},
    "visionzip, diverse": {"merging": "visionzip", "diverse": True},
}


def candidates(model: Any, keep: float, only: list[str]) -> list[Run]:
    """Named methods, and the options at the published drop layers, at a third and two thirds, a quarter and a half."""
    facts = facts_of(model.config)
    whole, layers = facts.visual_tokens, facts.layers
    assert whole is not None
    configs = {name: DuetConfig.preset(name, model=model, keep=keep) for name in NAMED}
    for late, gone in ((layers // 2, 3 * layers // 4), (layers // 3, 2 * layers // 3), (layers // 4, layers // 2)):
        for name, changes in OPTIONS.items():
            many = [_behind(entering, [Drop(late, 0.5), Drop(gone, 0.0)], changes) for entering in range(4, whole + 1)]
            configs[f"{name}, {late}:.5 {gone}:0"] = nearest(many, keep * whole, whole, layers)
    return [Run(name, config, keep) for name, config in configs.items() if not only or name in only]


def _behind(entering: int, drops: list[Drop], changes: dict[str, Any]) -> DuetConfig:
    merging = changes.get("merging", "scope")
    contextual = round(entering / 6) if merging == "visionzip" else int("rest" in changes)
    made = {"merging": merging, **changes}
    return DuetConfig(dominant=entering - contextual, contextual=contextual, drops=drops, **made)


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
        runs = [Run("none", DuetConfig()), *(run for share in keep for run in candidates(loaded, share, only))]
        results = evaluate(loaded, processor, records, runs, out, batch_size=BATCH, seed=0)
        json_file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
