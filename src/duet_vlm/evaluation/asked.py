"""What `duet eval` is asked: read and checked before weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..demo.model import folder as demo_folder
from ..errors import DuetError
from ..loading import check_device, check_dtype, read_config, read_model
from .processes import Process
from .records import Problem, Record, read_manifest
from .runs import Run, runs_of

DEMO = "demo"


@dataclass
class Asked:
    """Everything found good, and the problems of the rest."""

    model: Any
    processor: Any
    records: list[Record]
    runs: list[Run]
    problems: list[Problem]
    about: dict[str, Any]


def prepare(
    model: str,
    data: str,
    methods: Sequence[str],
    tokens: Sequence[float],
    keep: Sequence[float],
    limit: int | None,
    strict: bool,
    dtype: str,
    device: str | None,
    process: Process,
    status: Callable[[str], Any] = lambda _: None,
) -> Asked:
    """Read and check everything, the cheap things first; see `duet eval --help`.

    Raises:
        ValueError: one sentence that says what to put right; with `strict` also for what could be left out.
    """
    check_dtype(dtype)
    where = process.device(check_device(device))
    source = str(demo_folder()) if model == DEMO else model
    runs, problems = runs_of(read_config(source), methods, tokens, keep)
    status("Reading the data")
    records, wrong = read_data(data, limit)
    problems += wrong
    if strict and problems:
        raise DuetError(f"{problems[0]} (--strict stops here)")
    status("Loading the model")
    # the demonstration model is saved in half precision to be small; it computes in full
    kind = "float32" if model == DEMO and dtype == "auto" else dtype
    network, processor = read_model(source, kind, where)
    about = {"model": model, "data": data, "limit": limit}
    return Asked(network, processor, records, runs, problems, about)


def read_data(data: str, limit: int | None) -> tuple[list[Record], list[Problem]]:
    """The records of the built-in benchmark or of a manifest, the first `limit` of them."""
    if data == DEMO:
        from .benchmark import make_records

        return make_records(limit), []
    records, problems = read_manifest(Path(data))
    return records[:limit], problems
