"""The page of `duet tune`: the choice, all settings, what breaks first, and answers that broke, with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..console.tables import several
from ..evaluation.examples import example
from ..evaluation.page import environment, plot_of
from ..evaluation.records import Record, source_of
from ..evaluation.runs import Run
from ..evaluation.store import RESULTS
from ..inputs.files import write_whole, writing
from .asking import Answers
from .plot import write_plot
from .summary import named, percent, sentence

PAGE, PLOT, EXAMPLES = "report.html", "pareto.png", 12
HEADS = ("setting", "tokens a layer", "KV KiB", "operations", "questions", "kept", "at least", "outcome")


def write_page(answers: Answers, results: dict[str, Any], found: dict[Any, dict[str, Any]], folder: Path) -> None:
    """Write the plot and the page. Examples are asked once more, alone, to see what was kept.

    Args:
        answers: who answered.
        results: what `tune.json` holds.
        found: (method, budget, record's id) -> an answer.
        folder: where the page goes.
    """
    with writing(folder, "the plot"):
        write_plot(results, folder / PLOT)
    shown = settings_shown(answers, results)
    broken = first_broken(answers, shown, found)
    judged = {key: dict(line) for key, line in found.items()}
    for record in broken:  # where there is no right answer, the full model's is the right one
        for run in (answers.full, *shown):
            line, full = judged.get((*run.key, record.id)), judged[*answers.full.key, record.id]
            if line is not None:
                line["score"] = answers.points(record, line, full)[0]
    asked = [run for run in (answers.full, *shown)]
    text = environment("duet_vlm.tuning").get_template("tune.html.j2").render(
        title=f"{results['settings'].get('model', 'a model')} on {results['settings'].get('data', 'a data set')}",
        sentence=sentence(results),
        note=note(results),
        rows=[list(HEADS), *map(cells, results["runs"])],
        pareto=plot_of(folder / PLOT, "What every setting kept over what it costs; the table has its figures"),
        breaking=breaking_rows(answers, shown, found),
        skipped=results["skipped"],
        examples=[
            example(answers.asker, record, [r for r in asked if (*r.key, record.id) in judged], judged, True)
            for record in broken
        ],
    )  # fmt: skip
    write_whole(folder / PAGE, text, RESULTS)


def cells(row: dict[str, Any]) -> list[str]:
    """A setting's row, as text, with what was seen of it on the most questions."""
    seen = row["test"] or row["seen"]
    figures = ["-"] * 4
    if seen is not None:
        share = percent(seen["share"])
        figures = [percent(seen["cost"]), str(seen["questions"]), share, percent(seen["lower"])]
    name = row["label"] if seen is None else named(seen)
    return [name, f"{row['tokens_avg']:.1f}", f"{row['kv_bytes'] / 1024:.0f}", *figures, row["verdict"]]


def note(results: dict[str, Any]) -> str:
    """What a reader of the page must know."""
    settings, machine = results["settings"], results["hardware"]
    return (
        f"{several(results['questions'], 'question')} about {several(results['sources'], 'image')}; a third of them "
        "compared settings, and only the others say what is promised. At least: a one-sided bound at confidence "
        f"{results['goal']['confidence']:g}, by images. Operations: of the decoder's prefill, of the full model's. "
        f"Seed {settings['seed']}, {settings['dtype']} on {machine.get('gpu', machine['cpu'])}. Command: "
        f"{results['command']}"
    )


def settings_shown(answers: Answers, results: dict[str, Any]) -> list[Run]:
    """The chosen setting, or the nearest, and the next cheaper one that was asked as many questions as any of those."""
    best = results["chosen"] or results["nearest"]
    if best is None:
        return []
    cost = {row["label"]: row["tokens_avg"] for row in results["runs"] if row["asked"]}
    cheaper = [row for row in results["runs"] if row["asked"] and row["tokens_avg"] < cost[best["name"]]]
    after = max(cheaper, key=lambda row: (row["asked"], row["tokens_avg"]), default=None)
    names = [best["name"], *([after["label"]] if after else [])]
    return [answers.runs[name] for name in names]


def breaking_rows(answers: Answers, shown: Sequence[Run], found: Mapping[Any, dict[str, Any]]) -> list[list[str]]:
    """What each shown setting keeps in every category, what the last one loses most first; empty without categories."""
    groups: dict[str, list[Record]] = {}
    for record in answers.records:
        if record.category:
            groups.setdefault(record.category, []).append(record)
    if not groups or not shown:
        return []
    rows = []
    for name, records in groups.items():
        judged = [answers.judged(run, records, found) for run in shown]
        texts = [f"{percent(one.share)} of {len(one.kept)}" if len(one.kept) else "-" for one in judged]
        rows.append((judged[-1].share if len(judged[-1].kept) else 2.0, [name, *texts]))
    heads = ["category", *(run.label for run in shown)]
    return [heads, *(row for _, row in sorted(rows, key=lambda pair: pair[0]))]


def first_broken(answers: Answers, shown: Sequence[Run], found: Mapping[Any, dict[str, Any]]) -> list[Record]:
    """Records that the full model has right and a shown setting has not, of many categories and images."""
    broken: dict[str, list[Record]] = {}
    sources = set[str]()
    for run in shown:
        for record in answers.records:
            ours, full = found.get((*run.key, record.id)), found.get((*answers.full.key, record.id))
            if ours is None or full is None or source_of(record) in sources:
                continue
            kept, whole = answers.points(record, ours, full)
            if whole >= 0.5 > kept:
                sources.add(source_of(record))
                broken.setdefault(record.category, []).append(record)
    chosen = list[Record]()
    while len(chosen) < EXAMPLES and any(broken.values()):
        chosen += [waiting.pop(0) for waiting in broken.values() if waiting]
    return chosen[:EXAMPLES]
