"""The report as one HTML page without other files: table, plots, and examples where methods disagree."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..console.tables import several
from ..pictures.overlay import kept_picture
from .answering import Asker
from .plots import CATEGORIES, PARETO
from .records import Record, source_of
from .runs import FULL, Run
from .store import write_whole
from .table import COLUMNS, category_rows, cells, note, title, yes_no_rows

PAGE, EXAMPLES = "report.html", 12
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2433;max-width:1180px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}p.faint,small{color:#6b7385}
div.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:13px}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #e9edf4}
td:first-child,th:first-child{text-align:left}img.plot{width:100%;max-width:1000px}
.example{border-top:1px solid #e9edf4;padding:1em 0}.cards{display:flex;flex-wrap:wrap;gap:10px}
figure{margin:0;width:150px;font-size:12.5px}figure img{width:150px;height:150px;object-fit:cover;border-radius:4px}
figure div.none{width:150px;height:150px;background:#f3f5f9;border-radius:4px}
.right{color:#1b7f3b}.wrong{color:#c0263a}figcaption b{font-weight:600}
"""


def write_page(
    asker: Asker, records: Sequence[Record], runs: list[Run], answers: dict[Any, dict[str, Any]],
    results: dict[str, Any], folder: Path,
) -> None:  # fmt: skip
    """Write `report.html`. The examples are asked once more, alone, to see what was kept."""
    shown = runs_of_the_smallest_budget(runs, results)
    examples = disagreements(records, shown, answers, EXAMPLES)
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>duet eval</title><style>{STYLE}</style>",
        f"<h1>{escape(title(results))}</h1>",
        f"<p class='faint'>{escape(_note(results))}</p>",
        _table([list(COLUMNS), *map(cells, results["runs"])]),
        _skipped(results),
        "<h2>Accuracy over tokens and time</h2>", _plot(folder / PARETO),
    ]  # fmt: skip
    if rows := category_rows(results):
        parts += ["<h2>Per category</h2>", _plot(folder / CATEGORIES), _table(rows)]
    if rows := yes_no_rows(results):
        asked = several(results["metrics"]["yes_no"], "yes/no question")
        parts += [f"<h2>{asked}, “yes” being positive</h2>", _table(rows)]
    if examples:
        parts.append(
            f"<h2>Where methods disagree{_at(shown)}</h2><p class='faint'>Each patch is as bright as the share of "
            "decoder layers its token is in; orange patches were merged into a contextual token, dark ones are gone. "
            "Each example is asked alone here; its answers are those of the evaluation.</p>"
        )
        parts += [_example(asker, record, shown, answers) for record in examples]
    write_whole(folder / PAGE, "\n".join(parts) + "\n")


def runs_of_the_smallest_budget(runs: list[Run], results: dict[str, Any]) -> list[Run]:
    """The full model and the runs whose budget keeps the fewest tokens: there methods differ most."""
    tokens: dict[Any, float] = {}
    for row in results["runs"]:
        if row["method"] != FULL:
            tokens[row["budget"]] = min(row["tokens_avg"], tokens.get(row["budget"], row["tokens_avg"]))
    smallest = min(tokens, key=lambda budget: tokens[budget]) if tokens else None
    return [run for run in runs if run.method == FULL or run.budget == smallest]


def disagreements(
    records: Sequence[Record], runs: list[Run], answers: dict[Any, dict[str, Any]], count: int
) -> list[Record]:
    """Records that about half of the compressed runs get right, of every category in turn, of many images."""
    compressed = [run for run in runs if run.method != FULL]
    if len(compressed) < 2:
        return []
    waiting: dict[str, list[tuple[float, int]]] = {}
    for place, record in enumerate(records):
        right = [answers[*run.key, record.id]["score"] >= 0.5 for run in compressed]
        if 0 < sum(right) < len(right):
            waiting.setdefault(record.category, []).append((abs(sum(right) / len(right) - 0.5), place))
    chosen: list[Record] = []
    while len(chosen) < count and any(waiting.values()):
        for found in waiting.values():
            if found and len(chosen) < count:
                shown = {source_of(record) for record in chosen}
                best = min(found, key=lambda one: (source_of(records[one[1]]) in shown, *one))
                found.remove(best)
                chosen.append(records[best[1]])
    return chosen


def _example(asker: Asker, record: Record, runs: list[Run], answers: dict[Any, dict[str, Any]]) -> str:
    medium = asker.medium(record)
    batch = asker.prepare([record], [medium])
    cards = []
    for run in runs:
        trace = asker.ask_with_trace(run, batch)[1]
        picture = None
        if record.video is None:
            picture = kept_picture(medium, trace, batch.inputs, asker.processor, asker.model.config)
        one = answers[*run.key, record.id]
        mark = "right" if one["score"] >= 0.5 else "wrong"
        drawn = f"<img alt='' src='{_data(picture)}'>" if picture is not None else "<div class='none'></div>"
        cards.append(
            f"<figure>{drawn}<figcaption><b>{escape(run.method)}</b> <small>{one['tokens_avg']:.0f} tokens</small><br>"
            f"<span class='{mark}'>{'✓' if mark == 'right' else '✗'} {escape(one['answer'] or '(nothing)')}</span>"
            "</figcaption></figure>"
        )
    expected = ", ".join(dict.fromkeys(record.expected))
    return (
        f"<div class='example'><p><b>{escape(record.question)}</b> → {escape(expected)} "
        f"<small>{escape(record.category)} {escape(record.id)}</small></p>"
        f"<div class='cards'>{''.join(cards)}</div></div>"
    )


def _data(picture: Any) -> str:
    held = io.BytesIO()
    picture.save(held, format="JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()


def _plot(file: Path) -> str:
    held = base64.b64encode(file.read_bytes()).decode()
    return f"<img class='plot' alt='{escape(file.stem)}' src='data:image/png;base64,{held}'>"


def _note(results: dict[str, Any]) -> str:
    settings, machine, versions = results["settings"], results["hardware"], results["versions"]
    return (
        f"Seed {results['seed']}, batches of {settings['batch_size']}, {settings['dtype']} on "
        f"{machine.get('gpu', machine['cpu'])}, {several(machine['threads'], 'thread')} a process; duet-vlm "
        f"{versions['duet_vlm']}, torch {versions['torch']}, transformers {versions['transformers']}. "
        f"{note(results).capitalize()}. Command: {results['command']}"
    )


def _table(rows: list[list[str]]) -> str:
    head, *rest = [[escape(cell).replace("\n", "<br>") for cell in row] for row in rows]
    lines = ["".join(f"<th>{cell}</th>" for cell in head), *("".join(f"<td>{c}</td>" for c in row) for row in rest)]
    return f"<div class='wide'><table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table></div>"


def _skipped(results: dict[str, Any]) -> str:
    if not results["skipped"]:
        return ""
    items = [
        escape(problem["reason"] if problem["line"] is None else f"line {problem['line']}: {problem['reason']}")
        for problem in results["skipped"]
    ]
    return f"<h2>Not evaluated: {len(items)}</h2><ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _at(runs: list[Run]) -> str:
    budgets = {run.budget for run in runs if run.budget is not None}
    return f" at budget {budgets.pop():g}" if budgets else ""
