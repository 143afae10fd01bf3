"""What `duet batch` is asked: read and checked on one machine, before any worker starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DuetError
from ...evaluation.records import Record, Skipped, read_manifest
from ...evaluation.runs import Run
from ...inputs.checkpoints import read_config
from ...inputs.choice import chosen
from ...inputs.model_folders import DEMO
from ...inputs.prepared import DEFAULT_KEEP
from .worker import Job


@dataclass(frozen=True)
class BatchRequest:
    """Everything found good, and the problems of the rest.

    Attributes:
        words: the method and its budget, for people.
    """

    data: Path
    records: list[Record]
    problems: list[Skipped]
    job: Job
    words: str

    @property
    def settings(self) -> dict[str, Any]:
        """What every answer depends on, JSON-able; the version of the settings' format is no part of it."""
        config = {name: value for name, value in self.job.run.config.to_dict().items() if name != "version"}
        return {
            "command": "duet batch", "model": self.job.model, "method": self.job.run.method, "config": config,
            "max_new_tokens": self.job.max_new_tokens, "dtype": self.job.dtype,
        }  # fmt: skip


def read_batch(
    data: Path,
    model: str,
    method: str | None,
    tokens: float | None,
    keep: float | None,
    max_new_tokens: int,
    dtype: str,
    device: str | None,
) -> BatchRequest:
    """Read the manifest and the model's config, no weights; see `duet batch --help`.

    Raises:
        DuetError: one sentence that says what to put right; what is wrong with single records is in `problems`.
    """
    config = read_config(model)
    choice = chosen(config, method, tokens, keep, DEFAULT_KEEP)
    records, problems = read_manifest(data, scored=False)
    if not records:
        raise DuetError(f"there is nothing to ask{f': {problems[0]}' if problems else '.'}")
    run = Run(choice.method, choice.config, tokens if keep is None else keep)
    job = Job(everywhere(model), run, max_new_tokens, dtype, device)
    return BatchRequest(data, records, problems, job, choice.words)


def everywhere(model: str) -> str:
    """A model's name for processes that run in other folders."""
    folder = Path(model).expanduser()
    return str(folder.resolve()) if model != DEMO and folder.is_dir() else model
