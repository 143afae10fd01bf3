"""`duet batch` on Ray: answers are the engine's own, and whoever is killed, each record has one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import batches
import psutil
import pytest
from commands import duet
from PIL import Image

from duet_vlm.console.quiet import quiet
from duet_vlm.evaluation.records import Record
from duet_vlm.serving.batch.answering import answer_all
from duet_vlm.serving.batch.cluster import Share, cluster
from duet_vlm.serving.batch.output import Output
from duet_vlm.serving.batch.request import BatchRequest, read_batch
from duet_vlm.serving.batch.worker import Worker

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
COMMON = ["--keep", batches.KEEP, "--max-new-tokens", batches.LONGEST]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    with quiet(), cluster(None) as ray:
        yield ray


def request(file: Path) -> BatchRequest:
    return read_batch(file, "demo", "duet", None, batches.KEEP, batches.LONGEST, "auto", "cpu")


def run(ray: Any, file: Path, out: Path, batch_size: int, workers: int, **more: Any) -> list[dict[str, Any]]:
    """All lines as they came, before they are put in order."""
    asked = request(file)
    with quiet(), Output(out, asked.settings, asked.records) as output:
        answer_all(ray, asked.job, output, Share(workers, 0.5, 0, 1), batch_size, **more)
        return batches.read(output.file)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    there = [one for one in process.children(recursive=True) if running(one)]
    return [one for one in there if "MapWorker" in " ".join(one.cmdline())]


def test_answers_are_the_engines_own_and_failures_are_lines(ray: Any, tmp_path: Path) -> None:
    file, out = batches.manifest(tmp_path, 10), tmp_path / "out"
    good = batches.read(file)
    (tmp_path / "cut.png").write_bytes((tmp_path / "scene0.png").read_bytes()[:500])
    bad = [{"id": name, "image": f"{name}.png", "question": good[0]["question"]} for name in ("cut", "gone")]
    batches.write(file, [*good[:5], *bad, "no JSON", *good[5:]])
    done = duet("batch", "--data", file, "--out", out, "--batch-size", 4, "--workers", 1, "--json", "-", *COMMON)
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("duet: 3 records failed, for example record 'cut': image ")
    expected = batches.one_by_one(file.parent / file.name, [record["id"] for record in good])
    lines = batches.read(out / "answers.jsonl")
    names = [*(f"q{n}" for n in range(5)), "cut", "gone", None, *(f"q{n}" for n in range(5, 10))]
    assert [line["id"] for line in lines] == names
    for line in lines:
        if line["id"] in expected:
            answer, counts = expected[line["id"]]
            assert line["answer"] == answer and line["visual_tokens"] == 196
            assert (line["tokens_in"], line["tokens_last"]) == (counts[0], counts[-1])
            assert line["tokens_avg"] == pytest.approx(sum(counts) / len(counts), abs=1e-4)
    told = {line["id"]: line["error"] for line in lines if "error" in line}
    assert "truncated or damaged" in told["cut"] and "does not exist" in told["gone"] and "not JSON" in told[None]
    figures = json.loads(done.stdout)
    assert (figures["answered"], figures["failed"], figures["visual_tokens"]) == (10, 3, 196)
    assert figures["tokens_in"] == expected["q0"][1][0]
    # what was wrong is put right, and the same command goes on; what was answered is not asked again
    Image.new("RGB", (112, 112)).save(tmp_path / "cut.png")
    Image.new("RGB", (112, 112)).save(tmp_path / "gone.png")
    batches.write(file, [*good[:5], *bad, *good[5:]])
    before = {line["id"]: line for line in lines if "answer" in line}
    more = duet("batch", "--data", file, "--out", out, "--batch-size", 2, "--workers", 1, *COMMON)
    assert more.exit_code == 0 and more.stderr == f"duet: {out} has 10 of 12 answers already.\n", more.output
    assert more.stdout.startswith("12 answers in ")
    lines = batches.read(out / "answers.jsonl")
    assert [line["id"] for line in lines] == [name for name in names if name] and all(
        "answer" in line for line in lines
    )
    assert before == {line["id"]: line for line in lines if line["id"] in before}
    refused = duet("batch", "--data", file, "--out", out, "--keep", 0.5, "--max-new-tokens", batches.LONGEST)
    assert refused.exit_code == 2 and "belongs to another run: its config.dominant was" in refused.stderr


def test_killed_workers_lose_and_repeat_nothing(ray: Any, tmp_path: Path) -> None:
    file, killed = batches.manifest(tmp_path, 16), list[int]()

    def kill(lines: int) -> None:
        if len(killed) < 2:
            victim = workers_of(psutil.Process())[0]
            victim.send_signal(signal.SIGKILL)
            killed.append(victim.pid)

    lines = run(ray, file, tmp_path / "out", batch_size=1, workers=2, advance=kill)
    assert len(killed) == 2
    assert Counter(line["id"] for line in lines) == {f"q{n}": 1 for n in range(16)}
    assert all("answer" in line for line in lines)


@pytest.mark.long
def test_a_record_that_kills_every_worker_is_left_out(ray: Any, tmp_path: Path) -> None:
    class Killed(Worker):
        def together(self, records: list[Record]) -> list[dict[str, Any]]:
            if any(record.id == "q5" for record in records):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().together(records)

    lines = run(ray, batches.manifest(tmp_path, 12), tmp_path / "out", batch_size=4, workers=2, worker=Killed)
    assert Counter(line["id"] for line in lines) == {f"q{n}": 1 for n in range(12)}
    assert {line["id"] for line in lines if "error" in line} == {"q5"}


@pytest.mark.long
def test_the_whole_command_killed_goes_on_and_leaves_nothing_behind(ray: Any, tmp_path: Path) -> None:
    file, out = batches.manifest(tmp_path, 20), tmp_path / "out"
    records = [record | {"id": f"{record['id']}-{n}"} for n in range(10) for record in batches.read(file)]
    batches.write(file, records)
    command = [sys.executable, "-m", "duet_vlm", "batch", "--data", file, "--out", out, *COMMON]
    first = subprocess.Popen([str(word) for word in [*command, "--batch-size", 1]], stderr=subprocess.PIPE)
    while first.poll() is None and len(lines_of(out)) < 3:
        time.sleep(0.05)
    others = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    assert first.communicate()[1] == b""
    before = lines_of(out)
    assert others and 3 <= len(before) < len(records)
    # the other half of the work on a cluster that is there, which outlives the command
    command += ["--address", ray.get_runtime_context().gcs_address]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == f"duet: {out} has {len(before)} of 200 answers already.\n"
    assert done.stdout.startswith(f"200 answers in {out / 'answers.jsonl'}\nduet, --keep 0.33: 196.0 visual tokens, ")
    lines = batches.read(out / "answers.jsonl")
    assert [line["id"] for line in lines] == [record["id"] for record in records]
    assert {json.dumps(line) for line in before} <= {json.dumps(line) for line in lines}
    _, alive = psutil.wait_procs([one for one in others if running(one)], timeout=60)
    assert not [one for one in alive if running(one)]


def lines_of(out: Path) -> list[dict[str, Any]]:
    """Those that are whole."""
    file = out / "answers.jsonl"
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []


def running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
