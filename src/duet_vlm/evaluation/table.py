"""The report's tables: their cells, and how the terminal shows them."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..console.tables import several
from ..console.terminal import escape
from .runs import SAVED
from .statistics import LEAST_SOURCES

COLUMNS = (
    "method", "budget", "tokens in / average / last", "KV KiB", "accuracy %", "% of full", "95% interval",
    "first token ms", "answer ms",
)  # fmt: skip
WIDTH = 120  # of a console that is no terminal


def cells(run: dict[str, Any]) -> list[str]:
    """A row of the table, as text."""
    interval = run["ci95"]
    return [
        run["method"],
        "" if run["budget"] is None else f"{run['budget']:g}",
        " / ".join(f"{run[name]:.0f}" for name in ("tokens_in", "tokens_avg", "tokens_last")),
        f"{run['kv_bytes'] / 1024:.0f}",
        f"{100 * run['accuracy']:.1f}",
        "-" if run["retained"] is None else f"{run['retained']:.1f}",
        "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}",
        "-" if run["ttft_ms"] is None else f"{run['ttft_ms']:.1f}",
        f"{1000 * run['seconds'] / run['n']:.1f}",
    ]


def title(results: dict[str, Any]) -> str:
    """What was asked, and how it was scored."""
    settings, metrics = results["settings"], results["metrics"]
    what = f"{settings.get('model', 'a model')} on {settings.get('data', 'a data set')}"
    shares = [name if len(metrics) == 1 else f"{name} ({n})" for name, n in metrics.items()]
    return f"{what}: {several(results['questions'], 'question')}, scored by {', '.join(shares)}"


def intervals(results: dict[str, Any]) -> str:
    """Where the intervals come from, or why there are none."""
    sources = results["sources"]
    if sources < LEAST_SOURCES:
        return f"no intervals: {several(sources, 'image')} of at least {LEAST_SOURCES} that they need"
    text = f"95% intervals: paired bootstrap over {several(sources, 'image')}"
    parts = results["runs"][0]["categories"].values()
    return text + (f", none below {LEAST_SOURCES}" if any(part["ci95"] is None for part in parts) else "")


def category_rows(results: dict[str, Any]) -> list[list[str]]:
    """Accuracy in percent of every run in every category, below a row of heads with the number of questions.

    Empty where no record has a category. With several metrics the heads name them.
    """
    parts = results["runs"][0]["categories"]
    if not parts:
        return []
    mixed = len(results["metrics"]) > 1
    heads = [
        f"{name}\nn = {part['n']}" + (f"\n{', '.join(part['metrics'])}" if mixed else "")
        for name, part in parts.items()
    ]
    rows = [
        [*cells(run)[:2], *(f"{100 * run['categories'][name]['accuracy']:.1f}" for name in parts)]
        for run in results["runs"]
    ]
    return [["method", "budget", *heads], *rows]


def yes_no_rows(results: dict[str, Any]) -> list[list[str]]:
    """POPE's figures of every run in percent, below a row of heads; empty without such questions."""
    names = ("accuracy", "precision", "recall", "f1", "yes_ratio")
    rows = [
        [*cells(run)[:2], *("-" if run["yes_no"][n] is None else f"{100 * run['yes_no'][n]:.1f}" for n in names)]
        for run in results["runs"]
        if "yes_no" in run
    ]
    return [["method", "budget", "accuracy %", "precision %", "recall %", "F1 %", "yes %"], *rows] if rows else []


def result_table(results: dict[str, Any]) -> Table:
    """One row per run, the full model first."""
    table = Table(title=escape(title(results)), caption=escape(note(results)), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "method" else "right")
    methods = [run["method"] for run in results["runs"]]
    before, grouped = None, len(set(methods)) < len(methods)
    for run in results["runs"]:
        if grouped and before is not None and run["method"] != before["method"]:
            table.add_section()
        table.add_row(*map(escape, cells(run)))
        before = run
    return table


def note(results: dict[str, Any]) -> str:
    """What a reader of the table must know."""
    parts = [
        intervals(results), "first token: of a prompt alone",
        f"answer: its share of a batch of {results['settings']['batch_size']}",
    ]  # fmt: skip
    if any(run["method"] == SAVED for run in results["runs"]):
        parts.append(f"{SAVED}: the settings in the model's own config")
    return "; ".join(parts)


def more_tables(results: dict[str, Any]) -> list[Table]:
    """Per category, and POPE's figures, where there are such."""
    shown = []
    asked = several(results["metrics"].get("yes_no", 0), "yes/no question")
    for text, rows in (
        ("accuracy in %, per category", category_rows(results)),
        (f'{asked}, "yes" being positive', yes_no_rows(results)),
    ):
        if rows:
            table = Table(title=text, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for place, head in enumerate(rows[0]):
                table.add_column(escape(head), justify="left" if place == 0 else "right")
            for row in rows[1:]:
                table.add_row(*map(escape, row))
            shown.append(table)
    return shown
