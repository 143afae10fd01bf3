"""What `duet batch` says, and how it ends, around its run; without Ray."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import batches
import pytest
from commands import duet, refused

from duet_vlm.serving.batch import answering, cluster
from duet_vlm.serving.batch.output import Output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lines that the workers find, one of each run."""
    found: list[dict[str, Any]] = []

    def answer_all(ray: Any, job: Any, output: Output, share: Any, batch_size: int, advance: Any) -> None:
        assert batch_size == 16 and job.max_new_tokens == 64 and job.model == "demo"
        if not found:
            raise KeyboardInterrupt
        advance(output.add([found.pop(0)]))

    monkeypatch.setattr(answering, "answer_all", answer_all)
    monkeypatch.setattr(cluster, "cluster", lambda address: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "share", lambda *asked: None)
    return found


def test_the_exit_tells_whether_anything_was_answered(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    file, out = batches.manifest(tmp_path, 1), tmp_path / "out"
    answer = {"id": "q0", "answer": "red", "visual_tokens": 196, "tokens_in": 50, "tokens_avg": 25.5, "tokens_last": 0}
    asked += [{"id": "q0", "error": "it is cursed."}, answer]
    first = duet("batch", "--data", file, "--out", out, "--keep", 0.25)
    assert first.exit_code == 1 and first.stdout == f"0 answers in {out / 'answers.jsonl'}\nduet, --keep 0.25\n"
    assert first.stderr == "duet: 1 record failed, for example record 'q0': it is cursed.\n"
    second = duet("batch", "--data", file, "--out", out, "--keep", 0.25)
    assert second.exit_code == 0 and second.stderr == ""
    assert second.stdout == (
        f"1 answer in {out / 'answers.jsonl'}\n"
        "duet, --keep 0.25: 196.0 visual tokens, 50.0 after stage 1, 25.5 on average, 0.0 in the last layer\n"
    )
    third = duet("batch", "--data", file, "--out", out, "--keep", 0.25, "--json", "-")  # nothing is left to ask
    assert third.exit_code == 0 and third.stderr == f"duet: {out} has 1 of 1 answers already.\n"
    figures = json.loads(third.stdout)
    assert figures["answered"] == 1 and figures["failed"] == 0 and figures["tokens_avg"] == 25.5
    assert figures["method"] == "duet" and figures["settings"] == "duet, --keep 0.25"


def test_a_stop_says_how_to_go_on(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    out = tmp_path / "out"
    stopped = duet("batch", "--data", batches.manifest(tmp_path, 1), "--out", out)
    assert stopped.exit_code == 130 and stopped.stdout == ""
    assert stopped.stderr == f"duet: stopped; the same command goes on with the answers in {out}.\n"


def test_a_manifest_without_a_good_record_is_refused(tmp_path: Path) -> None:
    file = batches.write(tmp_path / "m.jsonl", [{"image": "none.png", "question": "what ?"}, "no JSON"])
    refused(duet("batch", "--data", file, "--out", tmp_path / "out"), "there is nothing to ask: line 1: image")
    batches.write(file, [])
    refused(duet("batch", "--data", file, "--out", tmp_path / "out"), "there is nothing to ask.")
    assert not (tmp_path / "out").exists()
