"""What `duet eval` is asked: read and checked before weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.budget_rule import SAVED
from ..console.processes import Process
from ..errors import DuetError
from ..inputs.checkpoints import read_config, read_model
from ..inputs.devices import check_device, check_dtype
from .records import Record, Skipped, read_manifest
from .runs import Run, runs_of
from .suites import BUILT_IN

if TYPE_CHECKING:
    from transformers import ProcessorMixin


@dataclass
class EvalRequest:
    """Everything found good, and the problems of the rest."""

    model: Any
    processor: ProcessorMixin
    records: list[Record]
    runs: list[Run]
    problems: list[Skipped]
    about: dict[str, Any]


def read_request(
    model: str,
    data: str,
    *,
    methods: Sequence[str] | None,
    tokens: Sequence[float],
    keep: Sequence[float],
    limit: int | None,
    strict: bool,
    dtype: str,
    device: str | None,
    process: Process,
    status: Callable[[str], Any] = lambda _: None,
    coverage: Sequence[float] = (),
) -> EvalRequest:
    """Read and check everything, the cheap things first; see `duet eval --help`.

    Without methods and budgets a model is asked under the settings that it brings.

    Raises:
        ValueError: one sentence that says what to put right; with `strict` also for what could be left out.
    """
    check_dtype(dtype)
    where = process.device(check_device(device))
    config = read_config(model)
    if methods is None:
        brings = getattr(config, "duet", None) is not None and not tokens and not keep and not coverage
        methods = [SAVED] if brings else ["duet"]
    runs, problems = runs_of(config, methods, tokens, keep, coverage)
    status("Reading the data")
    records, wrong = read_data(data, limit)
    problems += wrong
    if strict and problems:
        raise DuetError(f"{problems[0]} (--strict stops here)")
    status("Loading the model")
    network, processor = read_model(model, dtype, where)
    about = {"model": model, "data": data, "limit": limit}
    return EvalRequest(network, processor, records, runs, problems, about)


def read_data(data: str, limit: int | None) -> tuple[list[Record], list[Skipped]]:
    """The first `limit` good records of a built-in benchmark or of a manifest, and what is wrong up to there."""
    if data in BUILT_IN:
        from .benchmark import make_records

        return make_records(limit, data), []
    records, problems = read_manifest(Path(data))
    if limit is not None and limit < len(records):
        last = records[limit - 1].line or 0
        problems = [problem for problem in problems if problem.line is None or problem.line < last]
    return records[:limit], problems
