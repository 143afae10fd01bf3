"""What `duet tune` is asked: read and checked before weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DuetError
from ..evaluation.metrics import check_expected
from ..evaluation.records import Record, Skipped, read_manifest
from ..evaluation.request import EvalRequest, read_data
from ..evaluation.suites import BUILT_IN
from ..inputs.checkpoints import read_config, read_model
from ..inputs.devices import check_device, check_dtype
from .candidates import KEEP, METHODS, candidates


def read_request(
    model: str, data: str, *, methods: Sequence[str] | None, keep: Sequence[float] | None, limit: int | None,
    dtype: str, device: str | None, status: Callable[[str], Any] = lambda _: None,
) -> EvalRequest:  # fmt: skip
    """Read and check everything, the cheap things first; see `duet tune --help`.

    Raises:
        DuetError: one sentence that says what to put right.
    """
    check_dtype(dtype)
    where, config = check_device(device), read_config(model)
    runs, problems = candidates(config, methods or METHODS, keep or KEEP)
    status("Reading the data")
    records, wrong = read_questions(data, limit)
    status("Loading the model")
    network, processor = read_model(model, dtype, where)
    about = {"model": model, "data": data, "limit": limit}
    return EvalRequest(network, processor, records, runs, [*problems, *wrong], about)


def read_questions(data: str, limit: int | None) -> tuple[list[Record], list[Skipped]]:
    """The questions of a built-in benchmark or of a manifest, whose lines need no answer here."""
    if data in BUILT_IN:
        return read_data(data, limit)
    records, problems = read_manifest(Path(data), scored=False)
    good = list[Record]()
    for record in records:
        try:
            if record.expected:
                check_expected(record.metric, record.expected)
            good.append(record)
        except DuetError as error:
            problems.append(Skipped(str(error), record.line, record.id))
    return good[:limit], problems
