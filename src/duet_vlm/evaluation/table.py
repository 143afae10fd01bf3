"""The report in the terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..terminal import escape

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


def result_table(results: dict[str, Any]) -> Table:
    """One row per run, the full model first."""
    settings = results["settings"]
    what = f"{settings.get('model', 'model')} on {settings.get('data', 'data')}: {results['questions']} questions"
    table = Table(
        title=escape(what),
        caption=f"95% intervals: paired bootstrap over {results['sources']} images; first token: of a prompt alone; "
        f"answer: its share of a batch of {settings['batch_size']}",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
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


def category_table(results: dict[str, Any]) -> Table:
    """Accuracy in percent of every run in every category."""
    names = list(results["runs"][0]["categories"])
    table = Table(title="accuracy in %, per category", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method")
    table.add_column("budget", justify="right")
    for name in names:
        table.add_column(escape(name), justify="right")
    for run in results["runs"]:
        shares = [f"{100 * run['categories'][name]['accuracy']:.1f}" for name in names]
        table.add_row(*map(escape, [*cells(run)[:2], *shares]))
    return table
