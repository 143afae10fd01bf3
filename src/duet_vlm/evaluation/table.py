"""The report's tables: their cells, and how the terminal shows them."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..config.budget_rule import SAVED
from ..console.tables import several
from ..console.terminal import escape
from .runs import FULL
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
        "-" if interval is None or run["method"] == FULL else f"{interval[0]:.1f} to {interval[1]:.1f}",
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


def word_rows(results: dict[str, Any]) -> list[list[str]]:
    """What the intervals say of every compressed run, in words, below a row of heads; empty where there is none."""
    reference = results["reference"]
    rows = [
        [*cells(run)[:2], kept_in_words(run), apart_in_words(run["difference"])]
        for run in results["runs"]
        if run["method"] != FULL
    ]
    heads = ["method", "budget", "beside the full model", f"beside {reference} at the same budget"]
    if all(not row[3] for row in rows):
        heads, rows = heads[:3], [row[:3] for row in rows]
    return [heads, *rows] if rows else []


def confidence(results: dict[str, Any]) -> str:
    """How far the words of `word_rows` can be relied on."""
    sources = results["sources"]
    if sources < LEAST_SOURCES:
        return f"Of {several(sources, 'image')}: how far these figures are from those of many images cannot be said."
    return (
        "A loss, a gain, better or worse is said where the whole 95% interval, in brackets, lies on that side. Were "
        "there no difference, about one interval in twenty would do so by chance, so expect it of some row where there "
        "are many. No difference shown does not mean that there is none."
    )


def kept_in_words(run: dict[str, Any]) -> str:
    """What a run keeps of the full model's accuracy, and whether its interval shows a difference."""
    if run["retained"] is None:
        return "the full model has none right"
    kept = f"keeps {run['retained']:.1f}% of the accuracy"
    if run["ci95"] is None:
        return kept
    low, high = run["ci95"]
    verdict = "a loss" if high < 100 else "a gain" if low > 100 else "no difference shown"
    return f"{kept} ({low:.1f} to {high:.1f}): {verdict}"


def apart_in_words(difference: dict[str, Any] | None) -> str:
    """Whether a run is better or worse than the one it is compared with, in points of accuracy; "" for that one."""
    if difference is None:
        return ""
    points = difference["points"]
    if difference["ci95"] is None:
        return f"{points:+.1f} points"
    low, high = difference["ci95"]
    if low <= 0 <= high:
        return f"no difference shown ({low:+.1f} to {high:+.1f} points)"
    near, far = sorted((abs(low), abs(high)))
    return f"{abs(points):.1f} points {'better' if low > 0 else 'worse'} ({near:.1f} to {far:.1f})"


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
    for run in (one for one in results["runs"] if "fell_back" in one):
        again = f"{100 * run['fell_back']:.1f}% of its answers were given again with all visual tokens"
        parts.append(f"{run['method']}: {again}, which its tokens count twice")
    if any(run["method"] == SAVED for run in results["runs"]):
        parts.append(f"{SAVED}: the settings in the model's own config")
    return "; ".join(parts)


def more_tables(results: dict[str, Any]) -> list[Table]:
    """Per category, and POPE's figures, where there are such."""
    tables = []
    questions = several(results["metrics"].get("yes_no", 0), "yes/no question")
    for text, rows in (
        ("accuracy in %, per category", category_rows(results)),
        (f'{questions}, "yes" being positive', yes_no_rows(results)),
    ):
        if rows:
            table = Table(title=text, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for place, head in enumerate(rows[0]):
                table.add_column(escape(head), justify="left" if place == 0 else "right")
            for row in rows[1:]:
                table.add_row(*map(escape, row))
            tables.append(table)
    return tables
