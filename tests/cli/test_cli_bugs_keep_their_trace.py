"""A bug keeps its trace, whatever its class, and is never said to be a file, a record or the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_errors import WORK, broken, duet, filled, refused

from duet_vlm import DuetError
from duet_vlm.evaluation import evaluate, runs
from duet_vlm.training import command
from duet_vlm.training.trainer import SaveError


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("errors"))


@pytest.mark.parametrize("name", WORK)
def test_a_bug_keeps_its_trace_and_what_a_user_can_put_right_is_a_line(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    for bug in (ValueError("a bug"), TypeError("a bug"), RuntimeError("a bug"), OSError("a bug"), KeyError("a bug")):
        result = duet(*broken(monkeypatch, name, bug))
        assert result.exception is bug and result.exit_code == 1 and "duet: " not in result.stderr
    arguments = broken(monkeypatch, name, DuetError("give another."))
    refused(duet(*arguments), "duet: give another.")
    for wanted in (["--debug", *arguments], [*arguments, "--debug"]):
        result = duet(*wanted)
        assert result.exit_code == 2 and result.stderr.startswith("Traceback"), result.output
        assert "in fail\n" in result.stderr and result.stderr.splitlines()[-1] == "duet: give another."


def test_the_trace_of_a_bug_reaches_the_terminal() -> None:
    code = (
        "from duet_vlm.cli import main as cli\nfrom duet_vlm.console import terminal\n"
        "def fail(*_): raise ValueError('a bug')\n"
        "terminal.check_json = fail\n"
        "cli.app(['demo', 'eval'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" in result.stderr and "in fail" in result.stderr
    assert "ValueError: a bug" in result.stderr and "duet: " not in result.stderr


def test_debug_behind_two_dashes_is_an_argument(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    result = duet("run", "--ask", "what ?", "--", "--debug")
    refused(result, "image '--debug' does not exist")


@pytest.mark.parametrize("error", [ValueError("a bug"), TypeError("a bug")])
def test_bugs_are_no_problems_of_an_evaluation(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(runs, "preset", fail)
    with pytest.raises(type(error), match="a bug"):
        runs.runs_of(None, ["duet"], [], [0.3])
    with pytest.raises(type(error), match="a bug"):
        evaluate.prepare_batch(SimpleNamespace(load_media=fail), [SimpleNamespace(id="1")], timed=False)  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize("bug", [TypeError("a bug"), RuntimeError("shapes do not fit"), OSError(28, "No space left")])
def test_a_bug_while_saving_is_not_said_to_be_the_disk(
    bug: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise bug

    monkeypatch.setattr(command, "trainer_of", lambda run: SimpleNamespace(train=lambda **_: None))
    monkeypatch.setattr(command, "save", fail)
    run: Any = SimpleNamespace(
        settings=SimpleNamespace(output=str(tmp_path)), arguments=SimpleNamespace(should_save=True), checkpoint=None
    )
    with pytest.raises(SaveError if isinstance(bug, OSError) else type(bug)) as error:
        command.train(run)
    assert isinstance(bug, OSError) or error.value is bug
