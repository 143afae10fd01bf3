"""Answers for `choosing.choose`: asked of a model, kept in a folder, and judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..console.processes import Process
from ..evaluation.answering import Asker
from ..evaluation.evaluate import ask_all
from ..evaluation.records import Record, source_of
from ..evaluation.runs import FULL, Run
from ..evaluation.store import Folder, Key
from .judged import Judged


class Answers:
    """What settings answered, asked for where it is missing.

    Args:
        asker: the model.
        records: the questions.
        runs: the full model and the settings.
        folder: where answers are kept.
        agree: whether answers are compared with the full model's, also where there is a right one.
        batch_size: prompts at a time.
        advance: called with the number of answers given since the last call.

    Attributes:
        seconds: spent on asking.
        given: answers given meanwhile.
    """

    def __init__(
        self, asker: Asker, records: Sequence[Record], runs: Sequence[Run], folder: Folder, agree: bool,
        batch_size: int, advance: Callable[[int], Any],
    ):  # fmt: skip
        self.asker, self.records, self.folder = asker, records, folder
        self.full = next(run for run in runs if run.method == FULL)
        self.runs = {run.label: run for run in runs if run.method != FULL}
        self.agree, self.batch_size, self.advance = agree, batch_size, advance
        self.seconds, self.given = 0.0, 0

    def ask(self, names: Sequence[str], places: Sequence[int]) -> Mapping[str, Judged]:
        """Judge settings on the questions at these places, without those that cannot be asked."""
        records = [self.records[place] for place in places]
        before, started = len(self.folder.answered()), time.monotonic()
        ask_all(
            self.asker, records, [self.full, *(self.runs[name] for name in names)], self.folder,
            batch_size=self.batch_size, strict=False, process=Process(), advance=self.advance,
        )  # fmt: skip
        answers = self.folder.answered()
        self.seconds += time.monotonic() - started
        self.given += len(answers) - before
        return {name: self.judged(self.runs[name], records, answers) for name in names}

    def judged(self, run: Run, records: Sequence[Record], answers: Mapping[Key, Mapping[str, Any]]) -> Judged:
        """How a setting did on those of the records that were answered."""
        there = [r for r in records if (*run.key, r.id) in answers and (*self.full.key, r.id) in answers]
        pairs = [(r, answers[*run.key, r.id], answers[*self.full.key, r.id]) for r in there]
        kept, whole = (
            zip(*(self.points(r, ours, theirs) for r, ours, theirs in pairs), strict=True) if pairs else ((), ())
        )
        margins = [ours.get("margin") for _, ours, _ in pairs]
        return Judged(
            np.array(kept, float),
            np.array(whole, float),
            np.array([ours["flops"] for _, ours, _ in pairs], float),
            np.array([theirs["flops"] for _, _, theirs in pairs], float),
            [source_of(record) for record in there],
            None if None in margins else np.array(margins, float),
        )

    def points(self, record: Record, ours: Mapping[str, Any], full: Mapping[str, Any]) -> tuple[float, float]:
        """What a setting and the full model have of one question: their scores, or whether they agree."""
        if self.agree or not record.expected:
            return float(ours["answer"] == full["answer"]), 1.0
        return ours["score"], full["score"]
