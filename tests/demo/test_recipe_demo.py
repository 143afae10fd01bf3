"""`python -m recipes.demo`: what its commands refuse, write and print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from duet_vlm import DuetError
from duet_vlm.demo.evaluate import VALIDATION_SEED
from recipes.demo import timing, training
from recipes.demo.commands import app

ROOT = Path(__file__).parents[2]


def recipe(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result: Any, message: str) -> None:
    assert result.exit_code == 2 and result.stdout == "", result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("duet: ") and line.endswith(".") and message in line, line


def test_it_runs_as_a_module_and_lists_its_commands() -> None:
    asked = [sys.executable, "-m", "recipes.demo", "--help"]
    told = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert "python -m recipes.demo" in told
    assert all(f" {command} " in told for command in ("train", "train-time", "ablations"))


@pytest.mark.parametrize(
    ("held", "what"),
    [("config.json", "a finished model"), ("checkpoints/vision.pt", "an earlier run (vision.pt)")],
)
def test_training_over_what_is_there_is_refused(held: str, what: str, tmp_path: Path) -> None:
    (tmp_path / held).parent.mkdir(exist_ok=True)
    (tmp_path / held).write_text("{}")
    refused(
        recipe("train", "--out", tmp_path, "--steps-scale", "0.0001"),
        f"holds {what}: go on with --resume, or choose another folder.",
    )
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [tmp_path / held]


def test_what_cannot_be_written_or_read_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("too late"))
    monkeypatch.setattr(timing, "measure", lambda *_: pytest.fail("too late"))
    (tmp_path / "file").write_text("a file")
    refused(recipe("train", "--out", tmp_path / "file" / "out"), "file' is a file, give a folder.")
    refused(recipe("train", "--out", tmp_path / "out", "--start", "nowhere.pt"), "'nowhere.pt' is no file")
    for command in ("train-time", "ablations"):
        refused(recipe(command, "--json", tmp_path), "it is a folder, give a file in it.")
    refused(recipe("ablations", "--model", tmp_path / "file"), "is no folder")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_bug_keeps_its_trace_and_a_stop_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: BaseException) -> Any:
        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr(training, "train", fail)
        return recipe("train", "--out", tmp_path)

    bug = ValueError("a bug")
    assert fails(bug).exception is bug
    refused(fails(DuetError("give another.")), "duet: give another.")
    stopped = fails(KeyboardInterrupt())
    assert stopped.exit_code == 130 and "go on from the last checkpoint with --resume." in stopped.stderr


def test_settings_reach_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(training, "train", lambda *arguments: called.append(arguments))
    done = recipe("train", "--out", tmp_path, "--keep", "1", "--keep", "0.33", "--steps-scale", "0.5", "--resume")
    assert done.exit_code == 0 and f"duet demo eval --model {tmp_path}" in done.stdout.replace("\n", " ")
    ((out, settings, processes, resume, compiled, start),) = called
    assert (out, processes, resume, compiled, start) == (tmp_path, 2, True, None, None)
    assert settings.keeps == (1.0, 0.33) and settings.full_steps == training.Recipe().full_steps / 2


def test_a_step_is_timed(tmp_path: Path) -> None:
    file = tmp_path / "time.json"
    options = ["--keep", "0.11", "--rounds", "1", "--scenes", "1", "--no-compile", "--json", file]
    done = recipe("train-time", *options)
    assert done.exit_code == 0, done.output
    assert list(json.loads(file.read_text())["budgets"]) == ["100%", "11%"] and "11%" in done.stdout


def test_budgets_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    budgets = ["--keep", "0.33", "--keep", "0.11", "--validation"]
    done = recipe("ablations", "--limit", "18", *budgets, "--json", file)
    assert done.exit_code == 0, done.output
    results = json.loads(file.read_text())
    assert list(results) == ["33%", "11%"]
    assert all(r["questions"] == 18 and r["seed"] == VALIDATION_SEED for r in results.values())
    assert "33%" in done.output and "18 validation questions" in done.output
