"""Files that cannot be read, of models, evaluations, trainings and questions, are one sentence with its cause."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from command_errors import duet, filled, refused
from hostile import one_sentence
from huggingface_hub.errors import LocalEntryNotFoundError, StrictDataclassFieldValidationError
from pydantic import Field
from safetensors import SafetensorError
from saved import save

from duet_vlm import DuetError
from duet_vlm.demo import model as demo_model
from duet_vlm.evaluation.store import Folder
from duet_vlm.inputs.checkpoints import read_processor, read_weights
from duet_vlm.training import resuming
from duet_vlm.training.fields import Number, Strict, read


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("errors"))


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


@pytest.mark.parametrize("text", ["", "[]", "5", "null", "{}", '{"model": "a"}'])
def test_a_checkpoint_with_a_damaged_stamp_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / resuming.FILE).write_text(text)
    now = {"settings": {}, "model": "a", "data": "b", "processes": 1}
    with pytest.raises(DuetError, match="was not written by") as error:
        resuming.check_checkpoint(tmp_path, now)
    assert str(error.value).endswith("choose another output folder.")


def test_numbers_beyond_all_measure_in_a_training_config() -> None:
    class Kind(Strict):
        a: Number = Field(0.0, ge=0)
        b: int = Field(0, ge=0)

    for data in ({"a": 10**400}, {"a": "x" * 500}, {"b": [1] * 500}, {"a": float("nan")}):
        with pytest.raises(DuetError, match="must be a ") as error:
            read(Kind, data)
        one_sentence(error)
