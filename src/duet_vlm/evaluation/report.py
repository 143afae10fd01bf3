"""From answers to figures: accuracy, what is retained of the full model, tokens four ways, times."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..errors import DuetError
from ..inputs.files import write_whole, writing
from ..measuring.timing import hardware
from .answering import Asker
from .metrics import yes_no_figures
from .records import Record, Skipped, source_of
from .runs import FULL, Run
from .statistics import DRAWS, difference, resampled_means, retained
from .store import RESULTS, Folder, Key

Answers = dict[Key, dict[str, Any]]
UNSORTED = "no category"


def write_report(
    asker: Asker,
    records: Sequence[Record],
    runs: list[Run],
    answers: Answers,
    settings: dict[str, Any],
    problems: Sequence[Skipped],
    folder: Folder,
) -> dict[str, Any]:
    """Write `results.json`, plots and page into the folder; returns what `results.json` holds."""
    if not records:
        raise DuetError(f"nothing could be asked: {problems[0]}")
    results = figures(records, runs, answers, settings["seed"]) | {
        "questions": len(records),
        "sources": len({source_of(record) for record in records}),
        "skipped": [{"reason": problem.reason, "line": problem.line, "id": problem.id} for problem in problems],
        "seed": settings["seed"],
        "bootstrap": {"draws": DRAWS, "unit": "image", "level": 0.95},
        "settings": {name: value for name, value in settings.items() if name != "versions"},
        "versions": settings["versions"],
        "hardware": hardware(settings["device"]),
        "command": command_line(),
    }
    write_whole(folder.path / "results.json", json.dumps(results, indent=1) + "\n", RESULTS)
    from .page import write_page
    from .plots import write_plots

    with writing(folder.path, "the plots"):
        write_plots(results, folder.path)
    write_page(asker, records, runs, answers, results, folder.path)
    return results


def command_line() -> str:
    """What was typed: `duet eval ...`, or `python -m MODULE ...` where a module was run."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or not spec.name:
        return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])


def figures(records: Sequence[Record], runs: list[Run], answers: Answers, seed: int) -> dict[str, Any]:
    """{"runs": [...], "reference", "metrics"}: a row per run, the full model first.

    `retained` and `ci95` are in percent of that.

    `metrics`: how many questions each metric scored. `categories` of a row are empty where no record has one.

    `difference` is to the first compressed method, `reference`, at the same budget, in percentage points of accuracy.
    """
    scores = np.array([[answers[*run.key, record.id]["score"] for record in records] for run in runs])
    sources = [source_of(record) for record in records]
    means = resampled_means(scores, sources, seed)
    whole = retained(scores, means)
    groups: dict[str, list[int]] = {}
    if any(record.category for record in records):
        for place, record in enumerate(records):
            groups.setdefault(record.category or UNSORTED, []).append(place)
    parts = {}
    for name, places in groups.items():
        part = scores[:, places]
        parts[name] = retained(part, resampled_means(part, [sources[place] for place in places], seed))
    # what the others are compared with, at its own budget
    reference = next((run.method for run in runs if run.method != FULL), FULL)
    places_of = {run.key: number for number, run in enumerate(runs)}
    metrics = Counter(record.metric for record in records)
    rows = []
    for number, run in enumerate(runs):
        run_answers = [answers[*run.key, record.id] for record in records]
        first_token_ms = [one["ttft_ms"] for one in run_answers if one["ttft_ms"] is not None]
        categories = {
            name: _share(scores[number, places], parts[name][number])
            | {"metrics": dict(Counter(records[place].metric for place in places))}
            | _yes_no([records[place] for place in places], [run_answers[place] for place in places])
            for name, places in groups.items()
        }
        rows.append(
            {
                "method": run.method,
                "budget": run.budget,
                "tokens_in": _mean(run_answers, "tokens_in"),
                "tokens_avg": _mean(run_answers, "tokens_avg"),
                "tokens_last": _mean(run_answers, "tokens_last"),
                "kv_bytes": round(_mean(run_answers, "kv_bytes")),
                **_share(scores[number], whole[number]),
                "ttft_ms": round(median(first_token_ms), 3) if first_token_ms else None,
                "seconds": round(sum(one["seconds"] for one in run_answers), 3),
                "difference": None
                if run.method == FULL
                else _difference(scores, means, number, places_of.get((reference, run.budget))),
                "categories": categories,
            }
            | _yes_no(records, run_answers)
            | _guarded(run, run_answers)
        )
    return {"runs": rows, "reference": reference, "metrics": dict(metrics)}


def _difference(scores: np.ndarray, means: np.ndarray | None, one: int, other: int | None) -> dict[str, Any] | None:
    if other is None or one == other:
        return None
    points, interval = difference(scores, means, one, other)
    return {"points": round(points, 3), "ci95": None if interval is None else [round(bound, 3) for bound in interval]}


def _share(scores: np.ndarray, retained_share: tuple[float | None, list[float] | None]) -> dict[str, Any]:
    share, interval = retained_share
    return {
        "n": len(scores),
        "accuracy": round(float(scores.mean()), 6),
        "retained": None if share is None else round(share, 3),
        "ci95": None if interval is None else [round(bound, 3) for bound in interval],
    }


def _yes_no(records: Sequence[Record], run_answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    pairs = [
        (one["answer"], record.expected[0])
        for record, one in zip(records, run_answers, strict=True)
        if record.metric == "yes_no"
    ]
    return {"yes_no": yes_no_figures([said for said, _ in pairs], [true for _, true in pairs])} if pairs else {}


def _guarded(run: Run, run_answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if run.config.fallback is None:
        return {}
    return {"fell_back": round(sum(one.get("fell_back", False) for one in run_answers) / len(run_answers), 6)}


def _mean(run_answers: Sequence[dict[str, Any]], name: str) -> float:
    return float(round(sum(one[name] for one in run_answers) / len(run_answers), 3))
