"""A worker of `duet batch` without Ray: every record gets a line, whatever happens while it is asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import batches
import pytest

from duet_vlm import DuetConfig
from duet_vlm.evaluation.records import Record, read_manifest
from duet_vlm.evaluation.runs import Run
from duet_vlm.serving.batch.attempts import Attempts
from duet_vlm.serving.batch.worker import Job, Worker, packed


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("worker")
    records, problems = read_manifest(batches.manifest(folder, 4), scored=False)
    assert not problems
    return records


@pytest.fixture(scope="module")
def loaded() -> Worker:
    return Worker(Job("demo", Run("none", DuetConfig()), 1, "auto", "cpu"), 1, Attempts())


@pytest.fixture
def worker(loaded: Worker, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """One that has begun nothing yet."""
    monkeypatch.setattr(loaded, "attempts", Attempts())
    return loaded


def asked(worker: Worker, records: list[Record]) -> list[dict[str, Any]]:
    found = json.loads(worker({"batch": json.dumps([packed(record) for record in records])})["found"])
    assert found.keys() == {"weights", "lines"}
    lines: list[dict[str, Any]] = found["lines"]
    return lines


def failing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, fails: Callable[[list[str]], BaseException | None]
) -> Counter:
    """Make asking fail; counts how often each record is asked."""
    ask, counts = worker.asker.ask, Counter[str]()

    def broken(run: Run, batch: Any) -> Any:
        names = [record.id for record in batch.records]
        counts.update(names)
        error = fails(names)
        if error is not None:
            raise error
        return ask(run, batch)

    monkeypatch.setattr(worker.asker, "ask", broken)
    return counts


def test_records_that_cannot_be_read_are_told_of_among_the_others(worker: Worker, records: list[Record]) -> None:
    folder = records[0].picture.parent
    (folder / "cut.png").write_bytes((folder / "scene0.png").read_bytes()[:500])
    bad = [
        Record("cut", "what ?", (), picture=folder / "cut.png"),
        Record("gone", "what ?", (), picture=folder / "gone.png"),
        Record("place", "what is <image> ?", (), picture=folder / "scene0.png"),
        Record("clip", "what ?", (), video=folder / "scene0.png"),
    ]
    lines = {line["id"]: line for line in asked(worker, [*records[:2], *bad[:3]]) + asked(worker, bad[3:])}
    assert list(lines["q0"]) == ["id", "answer", "visual_tokens", "tokens_in", "tokens_avg", "tokens_last"]
    assert lines["q1"]["visual_tokens"] == lines["q1"]["tokens_in"] == 196
    told = {name: line["error"] for name, line in lines.items() if "error" in line}
    assert told.keys() == {"cut", "gone", "place", "clip"}
    assert "is truncated or damaged" in told["cut"] and "does not exist" in told["gone"]
    assert "<image>" in told["place"] and "video" in told["clip"]


def test_what_fails_together_is_asked_alone(
    worker: Worker, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(worker, monkeypatch, lambda names: RuntimeError("out of memory\nmore") if "q2" in names else None)
    lines = {line["id"]: line for line in asked(worker, records)}
    assert lines["q2"] == {"id": "q2", "error": "it cannot be answered (RuntimeError: out of memory)."}
    assert all("answer" in lines[name] for name in ("q0", "q1", "q3"))


def test_a_record_that_ends_its_process_is_found_and_left_out(
    worker: Worker, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = failing(worker, monkeypatch, lambda names: SystemExit(1) if "q1" in names else None)
    for _ in range(3):  # as Ray starts a new process and asks it the same batch
        with pytest.raises(SystemExit):
            asked(worker, records)
    lines = {line["id"]: line for line in asked(worker, records)}
    assert lines.keys() == {"q0", "q1", "q2", "q3"} and "alone ended 2 times" in lines["q1"]["error"]
    assert counts["q1"] == 3 and all("answer" in lines[name] for name in ("q0", "q2", "q3"))
    with pytest.raises(SystemExit):  # a later run may ask it again
        asked(worker, records[1:2])


def test_a_broken_device_ends_the_process(
    worker: Worker, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def ended(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr("duet_vlm.serving.batch.worker.os._exit", ended)
    failing(worker, monkeypatch, lambda names: torch.AcceleratorError("an illegal memory access"))
    for some in (records, records[:1]):
        with pytest.raises(SystemExit):
            asked(worker, some)


def test_a_worker_that_cannot_load_says_why(tmp_path: Path) -> None:
    for job, told in (
        (Job(str(tmp_path), Run("none", DuetConfig()), 1), "has no config.json"),
        (Job("demo", Run("none", DuetConfig()), 1, "auto", "abacus"), "device 'abacus' is not available here"),
    ):
        found = json.loads(Worker(job, 1, Attempts())({"batch": "[]"})["found"])
        assert found.keys() == {"refused"} and told in found["refused"]
