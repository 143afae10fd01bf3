"""Files and folders that cannot be written are refused before any work, and a disk that fills up is a line."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from command_errors import WORK, broken, duet, filled, refused
from hostile import one_sentence
from matplotlib.figure import Figure
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from train_data import plain, written

from duet_vlm import DuetError
from duet_vlm.demo import evaluate as demo_evaluate
from duet_vlm.evaluation.store import Folder
from duet_vlm.inputs.files import write_whole
from duet_vlm.training import command
from duet_vlm.training.trainer import of_the_disk


class Full(io.RawIOBase):
    """A file on a disk that has no room."""

    def writable(self) -> bool:
        return True

    def write(self, _: Any) -> int:
        raise OSError(28, "No space left on device")


def full(*_: Any, **__: Any) -> None:
    Full().write(b"")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("errors"))


# command and option -> what comes before the file
FILES: dict[str, tuple[str, list[str], str]] = {
    "run --json": ("run", ["--json"], ".json"),
    "run --show": ("run", ["--show"], ".png"),
    "budget --json": ("budget", ["--json"], ".json"),
    "bench --json": ("bench", ["--json"], ".json"),
    "demo scene": ("demo scene", [], ".png"),
    "demo eval --json": ("demo eval", ["--json"], ".json"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    case: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, option, ending = FILES[case]
    monkeypatch.chdir(here)
    broken(monkeypatch, name, AssertionError("too late"))
    arguments = WORK[name][2][: -1 if name == "demo scene" else None]
    places = {
        "folder.png": "'folder.png': it is a folder, give a file in it.",
        f"file/a{ending}": f"'file/a{ending}': 'file' is a file, give one in a folder.",
        f"nowhere/a{ending}": f"'nowhere/a{ending}': its folder does not exist, create it first.",
        f"{'long' * 100}{ending}": "(File name too long): choose another name.",
    }
    for place, message in places.items():
        line = refused(duet(*arguments, *option, place), message)
        assert "cannot be written to" in line and len(line) < 260
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    refused(duet(*arguments, *option, f"a{ending}"), "there is no permission, choose another place.")
    assert sorted(p.name for p in here.iterdir()) == ["data.json", "file", "folder.png", "images", "model",
                                                      "photo.png", "train.yaml"]  # fmt: skip


@pytest.mark.parametrize("name", ["eval", "train"])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    name: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    if name != "train":
        broken(monkeypatch, name, AssertionError("too late"))
    monkeypatch.setattr(command, "training_arguments", lambda *_: pytest.fail("too late"))

    def asked_for(place: str) -> Any:
        if name == "train":
            return duet("train", "--config", written(tmp_path, plain(here, output=place)))
        return duet(*WORK[name][2][:-1], place)

    for place in ("file", "file/out", "file/a/b"):
        refused(asked_for(place), "file' is a file, give a folder.")
    refused(asked_for("long" * 100), "(File name too long): choose another name.")
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    refused(asked_for("a/b/c"), "there is no permission, choose another place.")
    assert not (here / "a").exists()


def test_pictures_of_an_unknown_ending_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    for place in ("a", "a.json"):
        refused(duet("demo", "scene", place), f"{place!r} tells no format of a picture: give a name that ends in .png")
    refused(duet("run", "photo.png", "--ask", "what ?", "--show", "a.txt"), "picture 'a.txt' has no known ending")


@pytest.mark.parametrize("case", ["budget --json", "demo scene", "run --show"])
def test_a_full_disk_is_a_line(case: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    name, option, _ = FILES[case]
    writers = {"budget": (Path, "write_text"), "demo scene": (Image.Image, "save"), "run": (Figure, "savefig")}
    monkeypatch.setattr(*writers[name], full)
    arguments = WORK[name][2][: -1 if name == "demo scene" else None]
    more = ["--model", "model", "--max-new-tokens", "1"] if name == "run" else []
    result = duet(*arguments, *more, *option, tmp_path / "a.png")
    refused(result, "a.png' (No space left on device): make room, or choose another place.")


def test_a_full_disk_in_an_evaluation_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "out", {"seed": 1})
    monkeypatch.setattr(Path, "open", lambda *_: Full())
    with pytest.raises(DuetError, match=r"the answers cannot be written to .*No space left") as error:
        folder.append([{"answer": "red"}])
    one_sentence(error)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DuetError, match=r"the results cannot be written to .*results\.json.*No space left"):
        write_whole(tmp_path / "results.json", "{}", "the results")
    assert not (tmp_path / "results.json").exists()


def test_figures_of_the_demonstration_go_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"accuracy": 1.0, "low": 0.9, "high": 1.0, "questions": 9}
    found = {"questions": 9, "accuracy": 1.0, "skills": {"color": row}}
    monkeypatch.setattr(demo_evaluate, "evaluate", lambda *_, **__: found)
    result = duet("demo", "eval", "--json", "-")
    assert result.exit_code == 0 and json.loads(result.stdout) == found, result.output


def test_what_a_full_disk_raises_is_known(tmp_path: Path) -> None:
    weights = {"a": torch.ones(10**6)}
    nowhere = tmp_path / "nowhere" / "a"
    for saving in (lambda: torch.save(weights, Full()), lambda: save_file(weights, nowhere)):  # type: ignore[arg-type]
        with pytest.raises((SafetensorError, OSError)) as error:
            saving()
        assert of_the_disk(error.value)
    # what torch's own writer says of a disk that fills up in the middle
    assert of_the_disk(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"))
    for bug in (TypeError("a bug"), RuntimeError("shape mismatch"), ValueError("a bug"), DuetError("a bug")):
        assert not of_the_disk(bug)
