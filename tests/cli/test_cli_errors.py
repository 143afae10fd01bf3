"""What the commands say of errors: a line for what a user can put right, the trace for all else, nothing too late."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hostile import one_sentence
from huggingface_hub.errors import LocalEntryNotFoundError, StrictDataclassFieldValidationError
from matplotlib.figure import Figure
from PIL import Image
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import save_file
from saved import photo, save
from train_data import plain, written
from typer.testing import CliRunner

from duet_vlm import DuetError
from duet_vlm.cli import request
from duet_vlm.cli.main import app
from duet_vlm.demo import evaluate as demo_evaluate
from duet_vlm.demo import model as demo_model
from duet_vlm.demo import scenes
from duet_vlm.evaluation import asked, evaluate, runs
from duet_vlm.evaluation.store import Folder
from duet_vlm.inputs.checkpoints import read_processor, read_weights
from duet_vlm.inputs.files import write_whole
from duet_vlm.measuring import costs, settings
from duet_vlm.training import command, resuming
from duet_vlm.training.fields import Number, Strict, read
from duet_vlm.training.trainer import SaveError, of_the_disk


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
    folder = tmp_path_factory.mktemp("errors")
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
    "run": (request, "prepare", ["run", "photo.png", "--ask", "what ?"]),
    "budget": (costs, "report", ["budget", "--shape", "tiny", "--tokens", "20"]),
    "bench": (settings, "settings", ["bench", "--shape", "tiny", "--tokens", "20"]),
    "eval": (asked, "prepare", ["eval", "--keep", "0.5", "--out", "out"]),
    "train": (command, "prepare", ["train", "--config", "train.yaml"]),
    "demo scene": (scenes, "make_scene", ["demo", "scene", "scene.png"]),
    "demo eval": (demo_model, "load", ["demo", "eval"]),
}


def broken(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> list[str]:
    module, function, arguments = WORK[name]

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(module, function, fail)
    return arguments


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


@pytest.mark.parametrize("text", ["", "{", "[]", "5"])
def test_an_evaluation_folder_that_someone_wrote_into(text: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out", {"seed": 1})
    (folder.path / "answers.jsonl").write_text(text + "\n")
    with pytest.raises(DuetError, match=r"answers\.jsonl' is not as duet eval wrote it"):
        folder.answered()
    (folder.path / "settings.json").write_text(text)
    with pytest.raises(DuetError, match=r"settings\.json' is not as duet eval wrote it") as error:
        Folder(folder.path, {"seed": 1})
    assert str(error.value).endswith(": give another folder.")


def test_files_that_cannot_be_read(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    (tmp_path / "no.yaml").write_text("a: [")
    for config, message in (
        ("nowhere.yaml", "config 'nowhere.yaml' does not exist"),
        ("model", "config 'model' is a folder"),
        (tmp_path / "no.yaml", "no.yaml' is no YAML at line 1"),
    ):
        refused(duet("train", "--config", config), message)
    refused(duet("demo", "eval", "--model", "nowhere"), "model 'nowhere' holds no config.json")
    refused(duet("demo", "eval", "--model", "file"), "model 'file' holds no config.json")
    refused(duet("run", "nowhere.png", "--ask", "what ?"), "image 'nowhere.png' does not exist")
    refused(duet("run", "folder.png", "--ask", "what ?"), "image 'folder.png' is a folder")
    refused(duet("eval", "--out", tmp_path / "out", "--model", "file"), "model 'file' is no folder")
    refused(duet("eval", "--out", tmp_path / "out", "--model", "model", "--data", "folder.png", "--keep", "0.5"),
            "manifest 'folder.png'")  # fmt: skip
    refused(duet("bench", "--model", "file"), "model 'file' is no folder")
    refused(duet("budget", "--model", "folder.png", "--keep", "0.5"), "model folder 'folder.png' has no config.json")
    monkeypatch.setattr(Path, "read_bytes", denied)
    refused(duet("train", "--config", "train.yaml"), "config 'train.yaml' cannot be read")


def denied(*_: Any, **__: Any) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_question_with_the_place_of_an_image_is_refused(here: Path) -> None:
    result = duet("run", here / "photo.png", "--ask", "what <image> color ?", "--model", here / "model")
    refused(result, "which this model takes for the place of a picture: leave it out or write it otherwise.")


def test_figures_of_the_demonstration_go_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"accuracy": 1.0, "low": 0.9, "high": 1.0, "questions": 9}
    found = {"questions": 9, "accuracy": 1.0, "skills": {"color": row}}
    monkeypatch.setattr(demo_evaluate, "evaluate", lambda *_, **__: found)
    result = duet("demo", "eval", "--json", "-")
    assert result.exit_code == 0 and json.loads(result.stdout) == found, result.output


def test_the_demonstration_model_is_loaded_from_folders_alone(here: Path) -> None:
    for wrong, message in (
        (5, "path 5 must be the folder of a model"),
        ("nowhere", "model 'nowhere' is no folder"),
        (here / "file", "file' is no folder"),
        (here / "images", "has no config.json"),
    ):
        with pytest.raises(DuetError, match=message) as error:
            demo_model.load(wrong)  # type: ignore[arg-type]
        assert str(error.value).endswith(".")
    assert demo_model.load(here / "model")[0].dtype == torch.float32


UNREADABLE = [
    OSError("We couldn't connect to the hub.\nCheck your connection."),
    ValueError("Unrecognized model in x. Should have a `model_type` key."),
    ImportError("LlavaProcessor requires the Pillow library"),
    LocalEntryNotFoundError("not in the cache"),
    StrictDataclassFieldValidationError("hidden_size", TypeError("not an int")),
    SafetensorError("Error while deserializing header: incomplete metadata"),
    RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"),
    RuntimeError("You set `ignore_mismatched_sizes` to `False`, thus raising an error: size mismatch"),
    pickle.UnpicklingError("invalid load key, 'x'."),
    Exception("expected value at line 1 column 1"),
    OSError("x" * 5000),
]
BUGS = [
    AttributeError("'NoneType' object has no attribute 'shape'"),
    TypeError("from_pretrained() got an unexpected keyword argument"),
    KeyError("vision"),
    IndexError("list index out of range"),
    AssertionError(),
    NotImplementedError("meta"),
    RuntimeError("CUDA error: device-side assert triggered"),
    torch.OutOfMemoryError("CUDA out of memory"),
]


@pytest.mark.parametrize("error", UNREADABLE, ids=repr)
def test_files_of_a_model_that_cannot_be_read_are_a_sentence_with_its_cause(
    error: Exception, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DuetError, match="model 'm' cannot be read") as found:
        loading_with(error, here, monkeypatch)
    text = one_sentence(found)
    assert str(error).splitlines()[0].rstrip(".")[:38] in text and found.value.__cause__ is error


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_a_bug_of_the_loaders_is_not_said_to_be_a_file(
    error: Exception, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(type(error)) as found:
        loading_with(error, here, monkeypatch)
    assert found.value is error


def loading_with(error: Exception, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForImageTextToText

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.chdir(here)
    if not (here / "m").exists():
        (here / "m").symlink_to(here / "model")
    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", fail)
    try:
        read_weights("m", "float32", "cpu")
    finally:
        (here / "m").unlink()


def test_a_damaged_tokenizer_is_a_sentence(tmp_path: Path) -> None:
    save(tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    file.write_text('{"version": "1.0", "model": {"type": "None"}, "added_tokens": []}')
    with pytest.raises(DuetError, match=r"model .* cannot be read \(") as error:
        read_processor(str(tmp_path / "model"))
    assert type(error.value.__cause__) is Exception


@pytest.mark.parametrize("error", [ValueError("a bug"), TypeError("a bug")])
def test_bugs_are_no_problems_of_an_evaluation(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(runs, "preset", fail)
    with pytest.raises(type(error), match="a bug"):
        runs.runs_of(None, ["duet"], [], [0.3])
    with pytest.raises(type(error), match="a bug"):
        evaluate.prepare(SimpleNamespace(medium=fail), [SimpleNamespace(id="1")], timed=False)  # type: ignore[arg-type, list-item]


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


@pytest.mark.parametrize("text", ["", "[]", "5", "null", "{}", '{"model": "a"}'])
def test_a_checkpoint_with_a_damaged_stamp_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / resuming.FILE).write_text(text)
    now = {"settings": {}, "model": "a", "data": "b", "processes": 1}
    with pytest.raises(DuetError, match="was not written by") as error:
        resuming.check(tmp_path, now)
    assert str(error.value).endswith("choose another output folder.")


def test_numbers_beyond_all_measure_in_a_training_config() -> None:
    class Kind(Strict):
        a: Number = Field(0.0, ge=0)
        b: int = Field(0, ge=0)

    for data in ({"a": 10**400}, {"a": "x" * 500}, {"b": [1] * 500}, {"a": float("nan")}):
        with pytest.raises(DuetError, match="must be a ") as error:
            read(Kind, data)
        one_sentence(error)
