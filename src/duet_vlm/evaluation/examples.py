"""The page's examples: records on which methods disagree, what each method kept of them, and which answers counted."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from ..pictures.overlay import kept_picture
from .answering import Asker
from .metrics import judged, right_answers
from .records import Record, source_of
from .runs import FULL, Run


def runs_of_the_smallest_budget(runs: list[Run], results: dict[str, Any]) -> list[Run]:
    """The full model and the runs whose budget keeps the fewest tokens: there methods differ most.

    Args:
        runs: all of them.
        results: what `results.json` holds.
    """
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
        for candidates in waiting.values():
            if candidates and len(chosen) < count:
                sources = {source_of(record) for record in chosen}
                best = min(candidates, key=lambda one: (source_of(records[one[1]]) in sources, *one))
                candidates.remove(best)
                chosen.append(records[best[1]])
    return chosen


def drawn_runs(runs: list[Run], smallest: list[Run], reference: str) -> list[Run]:
    """The runs of the smallest budget, and the reference method at its other budgets, in the order of all runs."""
    return [run for run in runs if run in smallest or run.method == reference]


def example(
    asker: Asker, record: Record, runs: list[Run], answers: dict[Any, dict[str, Any]], by_budget: bool
) -> dict[str, Any]:
    """What the page shows of one record; it is asked once more, alone, to see what was kept.

    Args:
        asker: the model.
        record: of the data.
        runs: a card for each.
        answers: (method, budget, record's id) -> its answer in the evaluation.
        by_budget: whether the cards' names tell the budget.
    """
    medium = asker.load_media(record)
    batch = asker.prepare([record], [medium])
    cards = []
    for run in runs:
        picture = None
        if record.video is None:
            trace = asker.ask_with_trace(run, batch)[1]
            picture = kept_picture(medium, trace, batch.inputs, asker.processor, asker.model.config)
        one = answers[*run.key, record.id]
        cards.append(
            {
                "name": run.label if by_budget else run.method,
                "picture": None if picture is None else jpeg(picture),
                "tokens": f"{one['tokens_avg']:.0f}",
                "right": one["score"] >= 0.5,
                "answer": one["answer"],
                "judged": judged(record.metric, one["answer"], record.expected),
            }
        )
    return {
        "question": record.question, "expected": right_answers(record.metric, record.expected),
        "category": record.category, "id": record.id, "cards": cards,
    }  # fmt: skip


def jpeg(picture: Any) -> str:
    """A PIL picture as a `data:` address."""
    held = io.BytesIO()
    picture.save(held, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()
