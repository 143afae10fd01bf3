"""What one worker does: it loads the model once, and answers batches of records, whatever one of them is like."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...console.quiet import quiet
from ...errors import DuetError, reason
from ...evaluation.answering import Asker
from ...evaluation.evaluate import prepare_batch
from ...evaluation.identity import weights_fingerprint
from ...evaluation.records import Record
from ...evaluation.runs import Run
from ...inputs.checkpoints import read_model
from ...inputs.devices import check_device
from .attempts import Attempts, FarAttempts

TRIES = 2  # of one record alone, before it is held to be what ends the process


@dataclass(frozen=True)
class Job:
    """What every worker is told.

    Attributes:
        model: a folder that all machines see, a hub id, or "demo".
        run: the method and its settings.
        max_new_tokens: the longest answer.
        dtype, device: as the commands take them; of several devices, the one that Ray gives this process.
    """

    model: str
    run: Run
    max_new_tokens: int
    dtype: str = "auto"
    device: str | None = None


class Worker:
    """Called by Ray Data with one batch at a time; see `__call__` for what goes in and out.

    Args:
        job: what to answer with.
        threads: of the CPU, to compute on.
        attempts: counts what workers began and did not end, so that a record that ends the process is found.
    """

    def __init__(self, job: Job, threads: int, attempts: Attempts | FarAttempts):
        self.job, self.attempts = job, attempts
        self.refused: str | None = None
        with quiet():
            try:
                torch.set_num_threads(threads)
                model, processor = read_model(job.model, job.dtype, check_device(job.device))
                self.asker = Asker(model, processor, job.max_new_tokens)
                self.weights = weights_fingerprint(model)
            except DuetError as error:
                self.refused = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """`{"batch": JSON of records}` -> `{"found": JSON}`: the lines, or why this worker cannot answer at all."""
        if self.refused is not None:
            return {"found": json.dumps({"refused": self.refused})}
        records = [unpacked(one) for one in json.loads(row["batch"])]
        with quiet():
            return {"found": json.dumps({"weights": self.weights, "lines": self.lines(records)})}

    def lines(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """A line for each record, with its answer or its error.

        A batch that ended a process, and one that fails as a whole, is asked record by record.
        """
        name, found = f"batch of {records[0].id}", list[dict[str, Any]]()
        if len(records) > 1 and self.attempts.begin(name) == 1:
            try:
                found = self.together(records)
            except Exception as error:
                _end_if_broken(error)
        found = found or [self.alone(record) for record in records]
        self.attempts.end(name)
        return found

    def together(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """The answers of a batch, and the errors of records that cannot be asked."""
        batch, _, wrong = prepare_batch(self.asker, records, timed=False)
        lines: list[dict[str, Any]] = [{"id": name, "error": told} for name, told in wrong.items()]
        if batch is None:
            return lines
        for record, answer, visual in zip(
            batch.records, self.asker.ask(self.job.run, batch), batch.visual, strict=True
        ):
            lines.append(
                {
                    "id": record.id, "answer": answer.text, "visual_tokens": visual, "tokens_in": answer.tokens_in,
                    "tokens_avg": round(answer.tokens_avg, 4), "tokens_last": answer.tokens_last,
                }
            )  # fmt: skip
        return lines

    def alone(self, record: Record) -> dict[str, Any]:
        """The line of one record, whatever happens while it is asked."""
        name = f"record {record.id}"
        if self.attempts.begin(name) > TRIES:
            told = f"the process that was asked it alone ended {TRIES} times: look at its file, or leave it out."
        else:
            try:
                (found,) = self.together([record])
                told = None
            except DuetError as error:
                told = str(error)
            except Exception as error:
                _end_if_broken(error)
                told = f"it cannot be answered ({type(error).__name__}: {reason(error)})."
        self.attempts.end(name)
        return found if told is None else {"id": record.id, "error": told}


def packed(record: Record) -> dict[str, Any]:
    """A record on its way to a worker, JSON-able; relative paths start where this process runs."""
    kind, path = ("image", record.picture) if record.video is None else ("video", record.video)
    return {"id": record.id, "question": record.question, kind: str(Path(path).absolute())}


def unpacked(data: dict[str, Any]) -> Record:
    """The record that `packed` packed."""
    paths = {kind: Path(data[kind]) for kind in ("image", "video") if kind in data}
    return Record(data["id"], data["question"], (), picture=paths.get("image"), video=paths.get("video"))


def _end_if_broken(error: Exception) -> None:
    """After an error of the device itself nothing more can be computed in this process: Ray starts another one."""
    if isinstance(error, torch.AcceleratorError):
        os._exit(1)
