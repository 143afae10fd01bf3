"""Commands that fail: how each is called, where it gets to work, what is said, and a disk without room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from saved import photo, save
from train_data import plain, written
from typer.testing import CliRunner

from duet_vlm.cli import request
from duet_vlm.cli.main import app
from duet_vlm.demo import model as demo_model
from duet_vlm.demo import scenes
from duet_vlm.evaluation import request as eval_request
from duet_vlm.measuring import costs, settings
from duet_vlm.training import command


def filled(folder: Path) -> Path:
    """A model, a picture, a file, a folder named like a picture, and what training needs."""
    save(folder / "model")
    photo(folder / "photo.png")
    (folder / "file").write_text("a file")
    (folder / "folder.png").mkdir()
    written(folder, plain(folder))
    return folder


def duet(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(result: Any, message: str) -> str:
    assert result.exit_code == 2 and result.stdout == "", result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("duet: ") and line.endswith(".") and message in line, line
    return line


# command -> the first thing of ours that it calls to get to work, and its arguments
WORK: dict[str, tuple[Any, str, list[str]]] = {
    "run": (request, "prepare_run", ["run", "photo.png", "--ask", "what ?"]),
    "budget": (costs, "cost_report", ["budget", "--shape", "tiny", "--tokens", "20"]),
    "bench": (settings, "settings", ["bench", "--shape", "tiny", "--tokens", "20"]),
    "eval": (eval_request, "read_request", ["eval", "--keep", "0.5", "--out", "out"]),
    "train": (command, "prepare_training", ["train", "--config", "train.yaml"]),
    "demo scene": (scenes, "make_scene", ["demo", "scene", "scene.png"]),
    "demo eval": (demo_model, "load", ["demo", "eval"]),
}


def broken(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> list[str]:
    module, function, arguments = WORK[name]

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(module, function, fail)
    return arguments
