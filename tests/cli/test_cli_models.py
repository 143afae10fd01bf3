"""`duet` and its models: the demonstration model and what it knows, settings that a model brings, adapters."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ASK, answered, duet, refused
from matplotlib.figure import Figure
from PIL import Image
from saved import photo, save
from transformers import AutoConfig

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.demo.recognise import is_scene
from duet_vlm.demo.scenes import make_scene
from duet_vlm.inputs import checkpoints as loading
from duet_vlm.inputs import model_folders
from duet_vlm.pictures import visualize

SCENES = Path(__file__).parents[2] / "examples"
SETTINGS = DuetConfig(40, 8, drops=[Drop(2, 0.25)], query="last")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save(folder / "model")
    photo(folder / "photo.png")
    return folder


def test_demonstration_model_and_its_unknown_words(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_folders.SHIPPED, "demo", here / "model")
    result = duet("run", here / "photo.png", "--ask", "What color is the giraffe?", "--max-new-tokens", 1)
    assert result.exit_code == 0, result.output
    knows = "duet: the demonstration model knows drawn scenes only"
    assert f"{knows} and has never seen these words: giraffe; for photos give --model.\n" in result.stderr


def test_demonstration_model_says_that_it_knows_scenes_only(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_folders.SHIPPED, "demo", here / "model")
    sentence = "duet: the demonstration model knows drawn scenes only; for photos give --model.\n"
    common = (*ASK, "--max-new-tokens", 1)
    assert sentence in duet("run", here / "photo.png", *common).stderr
    assert sentence not in duet("run", SCENES / "scene.png", *common).stderr
    assert sentence not in duet("run", here / "photo.png", "--model", here / "model", *common).stderr


def test_scenes_are_told_from_other_pictures(tmp_path: Path) -> None:
    for seed in range(60):
        scene = Image.fromarray(make_scene(np.random.default_rng(seed)).image)
        scene.resize((336, 336), Image.Resampling.NEAREST).save(tmp_path / "scene.jpg", quality=85)
        with Image.open(tmp_path / "scene.jpg") as jpeg:
            assert is_scene(scene) and is_scene(jpeg), seed
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    with Image.open(photo(tmp_path / "photo.png")) as other:
        others = [other.convert("RGB"), *(Image.new("RGB", (50, 40), c) for c in ("white", "black", "grey", "red"))]
    assert not any(is_scene(image) for image in [*others, Image.fromarray(noise), others[0].convert("L")])


def listed_questions() -> list[tuple[str, str, str]]:
    """Picture, question and what the model is said to answer, of every row of examples/README.md."""
    rows, picture = [], ""
    for line in (SCENES / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 3 and cells[1].endswith(("?", ".")):
            picture = cells[0].strip("`") or picture
            rows.append((picture, cells[1], cells[2].split("the model says ")[-1]))
    return rows


@pytest.mark.parametrize(("picture", "question", "answer"), listed_questions())
def test_examples_are_answered_as_listed(picture: str, question: str, answer: str) -> None:
    assert answered("run", SCENES / picture, "--ask", question)["answer"] == answer


def test_the_questions_of_makefile_and_help_are_answered_rightly() -> None:
    makefile = (SCENES.parent / "Makefile").read_text(encoding="utf-8")
    suggested = re.findall(r'ASK="(.+?)"', makefile) + re.findall(r"^ASK \?= (.+)$", makefile, re.M)
    suggested += re.findall(r"scene\.png\s+--ask\s+.([^'\"]+)", duet("--help").stdout)
    suggested += re.findall(r"scene\.png\s+--ask\s+.([^'\"]+)", duet("run", "--help").stdout)
    right = {question: answer for picture, question, answer in listed_questions() if picture == "scene.png"}
    table = (SCENES / "README.md").read_text(encoding="utf-8")
    assert len(suggested) >= 4
    for question in suggested:
        assert f"{question} | {right[question]} |" in table


def test_demo_is_the_demonstration_model_in_every_command(here: Path) -> None:
    report = answered("run", SCENES / "scene.png", "--model", "demo", *ASK)
    assert report["model"] == "the demonstration model" and report["visual_tokens"] == 196
    assert answered("budget", "--model", "demo", "--keep", 0.33)["visual_tokens"] == 196
    timed = answered("bench", "--model", "demo", "--tokens", 60, "--runs", 1, "--decode-steps", 1, "--device", "cpu")
    assert timed["stock"]["tokens_in"] == 196


@pytest.mark.parametrize("command", [["run", "PICTURE", *ASK], ["budget", "--tokens", 9], ["bench", "--tokens", 9]])
def test_ids_without_an_owner_are_refused_at_once(
    here: Path, command: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *a, **k: pytest.fail("asked the hub"))
    command = [here / "photo.png" if word == "PICTURE" else word for word in command]
    refused(duet(*command, "--model", "llava"), "model 'llava' is no folder, and an id on the hub is OWNER/NAME: give")


def test_no_connection_names_the_way_to_spare_the_attempts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.")

    monkeypatch.setattr(AutoConfig, "from_pretrained", fail)
    result = duet("run", here / "photo.png", *ASK, "--model", "owner/llava")
    refused(result, "where there is no connection, HF_HUB_OFFLINE=1 in the environment spares the attempts.")


@pytest.fixture(scope="module")
def trained(here: Path) -> Path:
    """A folder as `apply` and `save_pretrained`, or `duet train`, leave it."""
    model, processor = loading.read_model(str(here / "model"), "auto", "cpu")
    with duet_vlm.apply(model, SETTINGS):
        model.save_pretrained(here / "trained")
    processor.save_pretrained(here / "trained")
    return here / "trained"


def test_run_uses_the_settings_saved_with_a_model(here: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(visualize, "picture", lambda *a, title, **k: titles.append(title) or Figure())
    common = ("run", here / "photo.png", *ASK, "--model", trained, "--max-new-tokens", 1)
    report = answered(*common, "--show", here / "kept.png")
    assert report["tokens_per_layer"] == [48, 48, 12, 12] and report["config"] == SETTINGS.to_dict()
    assert (report["method"], report["settings"]) == ("saved", "the settings saved with the model")
    assert titles[0].startswith("settings saved with the model, 30.0 of 196 visual tokens")
    assert "the settings saved with the model" in duet(*common).stdout
    assert answered(*common, "--method", "saved")["config"] == SETTINGS.to_dict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "visionzip"], "visionzip, a third of the visual tokens (no budget was given)"),
        (["--tokens", "60"], "duet, --tokens 60"),
        (["--keep", "0.5", "--method", "fastv"], "fastv, --keep 0.5"),
        (["--method", "none"], "nothing compressed"),
    ],
)
def test_the_command_line_wins_over_saved_settings(here: Path, trained: Path, options: list[str], words: str) -> None:
    common = ("run", here / "photo.png", *ASK, *options, "--max-new-tokens", 1)
    brought, plain = (answered(*common, "--model", model) for model in (trained, here / "model"))
    assert brought["settings"] == f"{words}; the settings saved with the model were put aside"
    assert plain["settings"] == words
    assert brought["tokens_per_layer"] == plain["tokens_per_layer"] and brought["config"] == plain["config"]


def test_budget_uses_the_settings_saved_with_a_model(here: Path, trained: Path) -> None:
    report = answered("budget", "--model", trained)
    assert [row["visual_tokens"] for row in report["layers"]] == [48, 48, 12, 12] and report["method"] == "saved"
    refused(duet("budget", "--model", here / "model"), "there is no budget: give --tokens")
    refused(duet("budget", "--model", here / "model", "--method", "saved"), "this one has none: choose another.")
    refused(duet("budget", "--model", trained, "--method", "saved", "--keep", 0.3), "leave out --tokens and --keep")


def test_an_adapter_folder_runs_as_the_model_it_was_trained_on(here: Path, tmp_path: Path) -> None:
    """As `duet train` with LoRA writes it: adapter_config.json and duet.json, no config.json."""
    from peft import LoraConfig, get_peft_model

    base, processor = loading.read_model(str(here / "model"), "auto", "cpu")
    settings = LoraConfig(
        r=2, init_lora_weights=False, target_modules=["q_proj", "v_proj"], modules_to_save=["multi_modal_projector"]
    )
    model = get_peft_model(base, settings)
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "duet.json").write_text(json.dumps(SETTINGS.to_dict()))
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    processor.save_pretrained(tmp_path / "merged")
    common = ("run", here / "photo.png", *ASK, "--max-new-tokens", 8)
    report = answered(*common, "--model", tmp_path / "adapter")
    assert report["tokens_per_layer"] == [48, 48, 12, 12] and report["method"] == "saved"
    options = ("--tokens", 60, "--method", "visionzip")
    expected = answered(*common, "--model", tmp_path / "merged", *options)["answer"]
    assert answered(*common, "--model", tmp_path / "adapter", *options)["answer"] == expected != ""
    assert answered(*common, "--model", here / "model", *options)["answer"] != expected


def test_an_adapter_without_its_base_model_is_one_sentence(here: Path, tmp_path: Path) -> None:
    for base, message in ((str(tmp_path / "gone"), "is no folder"), (None, "does not name its base model")):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        refused(duet("run", here / "photo.png", *ASK, "--model", tmp_path), message)
