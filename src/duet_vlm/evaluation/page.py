"""The report as one HTML page without other files: tables, plots, and examples where methods disagree."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from ..console.tables import several
from ..inputs.files import write_whole
from .answering import Asker
from .examples import disagreements, drawn_runs, example, runs_of_the_smallest_budget
from .plots import CATEGORIES, DPI, PARETO
from .records import Record
from .runs import Run
from .store import RESULTS
from .table import COLUMNS, category_rows, cells, confidence, note, title, word_rows, yes_no_rows

PAGE, EXAMPLES = "report.html", 12
TEMPLATE = "report.html.j2"
CSS_DPI = 96  # pixels of a page per inch


def write_page(
    asker: Asker, records: Sequence[Record], runs: list[Run], answers: dict[Any, dict[str, Any]],
    results: dict[str, Any], folder: Path,
) -> None:  # fmt: skip
    """Write `report.html` beside the plots. The examples are asked once more, alone, to see what was kept.

    Args:
        asker: the model.
        records, runs: what was asked of what.
        answers: (method, budget, record's id) -> an answer.
        results: what `results.json` holds.
        folder: where the plots are.
    """
    smallest = runs_of_the_smallest_budget(runs, results)
    chosen = disagreements(records, smallest, answers, EXAMPLES)
    drawn = drawn_runs(runs, smallest, results["reference"])
    budgets = {run.budget for run in drawn} - {None}
    categories, yes_no = category_rows(results), yes_no_rows(results)
    page = environment().get_template(TEMPLATE)
    text = page.render(
        title=title(results),
        note=_note(results),
        figures=[list(COLUMNS), *map(cells, results["runs"])],
        words=word_rows(results),
        confidence=confidence(results),
        skipped=results["skipped"],
        pareto=plot_of(folder / PARETO, "Accuracy over visual tokens and over time; the first table has its figures"),
        categories=plot_of(folder / CATEGORIES, "Accuracy per category; the next table has its figures")
        if categories
        else None,
        category_rows=categories,
        yes_no_rows=yes_no,
        yes_no_title=several(results["metrics"].get("yes_no", 0), "yes/no question"),
        where=_where(smallest, drawn),
        examples=[example(asker, record, drawn, answers, len(budgets) > 1) for record in chosen],
    )
    write_whole(folder / PAGE, text, RESULTS)


def environment(*packages: str) -> Environment:
    """Templates of these packages and of this one, every value escaped, and no value that is missing passed over."""
    loader = ChoiceLoader([PackageLoader(name, ".") for name in (*packages, "duet_vlm.evaluation")])
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def plot_of(file: Path, alt: str) -> dict[str, Any]:
    """A plot at its own size, so that its letters are as large as the page's."""
    with Image.open(file) as picture:
        width = round(picture.width * CSS_DPI / DPI)
    held = base64.b64encode(file.read_bytes()).decode()
    return {"alt": alt, "width": width, "data": f"data:image/png;base64,{held}"}


def _note(results: dict[str, Any]) -> str:
    settings, machine, versions = results["settings"], results["hardware"], results["versions"]
    return (
        f"Seed {results['seed']}, batches of {settings['batch_size']}, {settings['dtype']} on "
        f"{machine.get('gpu', machine['cpu'])}, {several(machine['threads'], 'thread')} a process; duet-vlm "
        f"{versions['duet_vlm']}, torch {versions['torch']}, transformers {versions['transformers']}. "
        f"{note(results).capitalize()}. Command: {results['command']}"
    )


def _where(smallest: list[Run], drawn: list[Run]) -> str:
    budgets = {run.budget for run in smallest if run.budget is not None}
    others = {run.method for run in drawn if run not in smallest}
    at = f" at budget {budgets.pop():g}" if budgets else ""
    return at + (f", and what {others.pop()} kept at its other budgets" if others else "")
