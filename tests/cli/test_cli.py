"""The `duet` command: a good run, and every bad input with its sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import ASK, answered, duet, refused
from PIL import Image
from saved import LAYERS, PATCHES, photo, save
from transformers import LlamaConfig

import duet_vlm
from duet_vlm.cli import request
from duet_vlm.inputs import model_folders, prompts
from duet_vlm.inputs.checkpoints import read_processor
from duet_vlm.stage2.words import finder

SCENES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    save(folder / "model")
    save(folder / "next", "llava_next")
    photo(folder / "photo.png")
    return folder


def test_help_loads_no_torch() -> None:
    code = "import sys, duet_vlm.cli.main; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("command", [[], ["run"], ["budget"], ["bench"], ["demo"], ["demo", "scene"]])
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    result = duet(*command, "--help")
    assert result.exit_code == 0 and "Usage" in result.stdout
    if command and command[0] != "demo":
        assert f"duet {command[0]} " in result.stdout.split("Options")[0]  # an example


def test_version_is_that_of_the_package() -> None:
    assert duet("--version").stdout == f"duet-vlm {duet_vlm.__version__}\n"


def test_run_prints_answer_and_tokens(here: Path) -> None:
    result = duet("run", here / "photo.png", *ASK, "--model", here / "model", "--tokens", 64, "--max-new-tokens", 3)
    assert result.exit_code == 0, result.output
    for line in ("into the language model", "after the drop at layer 2", "layer average", "KV cache", "first token"):
        assert line in result.stdout
    assert f"salient words found by │ {finder()}" in " ".join(result.stdout.split())


@pytest.mark.parametrize("method", ["duet", "visionzip", "pyramiddrop", "fastv", "none"])
@pytest.mark.parametrize("family", ["model", "next"])
def test_every_method_runs_and_its_figures_add_up(here: Path, tmp_path: Path, family: str, method: str) -> None:
    budget = [] if method == "none" else ["--keep", 0.6]
    report = answered(
        "run", here / "photo.png", *ASK, "--model", here / family, "--method", method, *budget, "--compare",
        "--show", tmp_path / "kept.png", "--max-new-tokens", 3,
    )  # fmt: skip
    assert isinstance(report["answer"], str) and report["new_tokens"] == 3
    assert len(report["tokens_per_layer"]) == LAYERS
    whole, stock = report["visual_tokens"], report["uncompressed"]
    text = stock["kv_tokens"] - whole
    assert text == int(text) > 0
    # two keys and values of one head of 8 in float32 per token and layer
    assert report["kv_bytes"] == sum(n + text for n in report["tokens_per_layer"]) * 2 * 8 * 4
    assert stock["kv_bytes"] == (whole + text) * LAYERS * 2 * 8 * 4
    assert 0 < report["seconds_to_first_token"] <= report["seconds"]
    if method == "none":
        assert report["answer"] == stock["answer"] != "" and report["tokens_average"] == whole
    elif family == "model":
        assert abs(report["tokens_average"] - 0.6 * PATCHES) <= 0.5
    assert report["words_found_by"] == (finder("en") if method == "duet" else None)
    with Image.open(tmp_path / "kept.png") as picture:
        picture.load()
        assert picture.width > 500


@pytest.mark.parametrize("size", [(224, 112), (200, 160), (90, 300)])
def test_run_states_the_share_that_is_kept(here: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    """LLaVA-NeXT's budget is that of the patches that are no padding; the ends of rows go too."""
    common = ("run", photo(tmp_path / "photo.png", *size), *ASK, "--model", here / "next", "--max-new-tokens", 1)
    report = answered(*common, "--keep", 0.3)
    true = sum(report["tokens_per_layer"]) / len(report["tokens_per_layer"]) / report["visual_tokens"]
    assert report["kept"] == pytest.approx(true)
    assert 0.28 < true <= 0.3
    assert f"leaves {true:.1%} of all its tokens." in report["note"]
    assert f"({true:.1%})" in duet(*common, "--keep", 0.3).stdout
    assert "of all its tokens" not in answered(*common, "--method", "none")["note"]


def test_run_meets_a_third_by_default(here: Path) -> None:
    report = answered("run", here / "photo.png", *ASK, "--model", here / "model", "--max-new-tokens", 1)
    assert abs(report["tokens_average"] - PATCHES / 3) <= 0.5
    assert [drop["layer"] for drop in report["drops"]] == [2, 3]


def test_run_leaves_an_uncompressed_answer_alone(here: Path) -> None:
    common = ("run", here / "photo.png", *ASK, "--model", here / "model", "--max-new-tokens", 6)
    stock = answered(*common, "--method", "none")
    assert answered(*common, "--tokens", 40, "--compare")["uncompressed"]["answer"] == stock["answer"] != ""


def test_run_without_a_chat_template(tmp_path: Path) -> None:
    save(tmp_path / "model", template=False)
    report = answered("run", photo(tmp_path / "a.jpg"), *ASK, "--model", tmp_path / "model", "--max-new-tokens", 1)
    assert report["visual_tokens"] == PATCHES
    processor = read_processor(str(tmp_path / "model"))
    assert prompts.prompt(processor, "why ?") == "USER: <image>\nwhy ? ASSISTANT:"


@pytest.mark.parametrize("module", ["duet_vlm", "duet_vlm.cli.main"])
def test_modules_are_the_command(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"duet-vlm {duet_vlm.__version__}\n")


@pytest.mark.parametrize("command", ["", "run", "budget", "bench", "eval", "train", "demo", "demo eval"])
def test_h_is_help(command: str) -> None:
    words = command.split()
    short, long = duet(*words, "-h"), duet(*words, "--help")
    assert short.exit_code == 0 and short.stdout == long.stdout and "Usage" in short.stdout


@pytest.mark.parametrize("command", [[], ["demo"]])
def test_a_bare_command_is_its_help(command: list[str]) -> None:
    bare = duet(*command)
    assert bare.exit_code == 0 and bare.stderr == ""
    assert "Usage" in bare.stdout and bare.stdout.split() == duet(*command, "--help").stdout.split()


def test_tables_say_what_they_show(here: Path) -> None:
    common = ("run", here / "photo.png", *ASK, "--model", here / "model", "--max-new-tokens", 1)
    compressed, whole = duet(*common, "--keep", 0.5).stdout, duet(*common, "--method", "none").stdout
    assert " compressed" in compressed and "not compressed" not in compressed
    assert "not compressed" in whole and "visual tokens of the image" in whole


def bad_pictures(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = photo(folder / "whole.png").read_bytes()
    files = {
        "missing": (folder / "no.png", "does not exist: give the path of a picture file."),
        "a folder": (folder, "is a folder: give the path of a picture file."),
        "text": (folder / "text.png", "is no picture: give a PNG, JPEG, WebP, GIF, BMP or TIFF file."),
        "empty": (folder / "empty.png", "is no picture: give a PNG, JPEG, WebP, GIF, BMP or TIFF file."),
        "truncated": (folder / "half.png", "is truncated or damaged"),
        "truncated jpeg": (folder / "half.jpg", "is truncated or damaged"),
    }
    files["text"][0].write_text("a picture of a cat")
    files["empty"][0].write_bytes(b"")
    files["truncated"][0].write_bytes(whole[: len(whole) // 2])
    jpeg = photo(folder / "whole.jpg").read_bytes()
    files["truncated jpeg"][0].write_bytes(jpeg[: len(jpeg) // 2])
    return files


@pytest.mark.parametrize("case", ["missing", "a folder", "text", "empty", "truncated", "truncated jpeg"])
def test_pictures_that_cannot_be_read_are_refused(here: Path, tmp_path: Path, case: str) -> None:
    path, message = bad_pictures(tmp_path)[case]
    refused(duet("run", path, *ASK, "--model", here / "model"), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ask", "  "], "the question is empty: ask something about the picture"),
        ([*ASK, "--method", "magic"], "method 'magic' is unknown: choose one of duet, duet-plus, visionzip"),
        ([*ASK, "--tokens", "64", "--keep", "0.5"], "--tokens 64 and --keep 0.5 are both a budget: give one of them."),
        ([*ASK, "--method", "none", "--tokens", "64"], "leave out --tokens and --keep"),
        ([*ASK, "--tokens", "5000"], "cannot meet a budget of 5000 tokens here"),
        ([*ASK, "--method", "fastv", "--tokens", "3"], "fastv cannot meet a budget of 3 tokens here"),
        ([*ASK, "--keep", "0"], "duet: --keep 0.0 must be a fraction in (0, 1]."),
        ([*ASK, "--keep", "1.5"], "duet: --keep 1.5 must be a fraction in (0, 1]."),
        ([*ASK, "--show", "kept"], "picture 'kept' has no known ending: choose one of .png"),
        ([*ASK, "--show", "nowhere/kept.png"], "its folder does not exist, create it first."),
        ([*ASK, "--json", "nowhere/run.json"], "its folder does not exist, create it first."),
        ([*ASK, "--dtype", "int3"], "dtype 'int3' is unknown: choose one of auto, float32, bfloat16, float16."),
        ([*ASK, "--device", "abacus"], "device 'abacus' is not available here: choose one of"),
        ([*ASK, "--device", "cpu:7"], "device 'cpu:7' is not available here: choose one of"),
    ],
)
def test_bad_options_are_refused_before_weights_are_read(
    here: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(request, "read_weights", lambda *a: loaded.append(a))
    refused(duet("run", here / "photo.png", "--model", here / "model", *options), message)
    assert not loaded


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "is no folder: give one written by save_pretrained, or a hub id."),
        ("empty", "has no config.json: give a folder written by save_pretrained, or a hub id."),
        ("broken config", "cannot be read ("),
        ("no weights", "cannot be read ("),
        ("truncated weights", "cannot be read ("),
        ("no processor", "cannot be read ("),
        ("text model", "models of type 'llama' are not supported: duet-vlm compresses"),
        ("file", "is no folder"),
    ],
)
def test_folders_that_hold_no_model_are_refused(here: Path, tmp_path: Path, case: str, message: str) -> None:
    model = tmp_path / "model"
    if case == "file":
        model.write_text("weights")
    elif case == "empty":
        model.mkdir()
    elif case == "text model":
        LlamaConfig().save_pretrained(model)
    elif case != "missing":
        shutil.copytree(here / "model", model)
        weights = model / "model.safetensors"
        if case == "broken config":
            (model / "config.json").write_text('{"model_type": "llava", ')
        elif case == "no weights":
            weights.unlink()
        elif case == "truncated weights":
            weights.write_bytes(weights.read_bytes()[:1000])
        elif case == "no processor":
            for file in model.iterdir():
                if file.name not in ("config.json", "generation_config.json", weights.name):
                    file.unlink()
    refused(duet("run", here / "photo.png", *ASK, "--model", model), message)


def test_no_demonstration_model(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_folders.SHIPPED, "demo", tmp_path / "none")
    refused(duet("run", here / "photo.png", *ASK), "this installation has no model 'demo': give --model")


def test_missing_question(here: Path) -> None:
    result = duet("run", here / "photo.png")
    assert result.exit_code == 2 and result.stderr == "duet: --ask is missing: duet run -h shows how.\n"
