"""The shipped weights and the `duet demo` commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from duet_vlm.cli.demo import app
from duet_vlm.demo.evaluate import HELD_OUT_SEED, VALIDATION_SEED, demo_prompt, evaluate, interval, scene_at
from duet_vlm.demo.model import VISUAL_TOKENS, folder, load


@pytest.fixture(scope="module")
def demo() -> Any:
    return load()


def test_the_shipped_folder_is_small_and_complete(demo: Any) -> None:
    files = {p.name: p.stat().st_size for p in folder().iterdir()}
    assert sum(files.values()) < 20 * 2**20
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= set(files)
    model, processor = demo
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert type(processor).__name__ == "LlavaProcessor"
    assert model.config.text_config.num_hidden_layers >= 12
    ids = processor(images=scene_at(HELD_OUT_SEED, 0)[0].image, text=demo_prompt("where is the star ?"))["input_ids"]
    assert ids[0].count(model.config.image_token_id) == VISUAL_TOKENS >= 196


def test_it_answers_held_out_questions(demo: Any) -> None:
    result = evaluate(*demo, questions=63)
    assert result["questions"] == 63
    assert result["accuracy"] > 0.75
    assert all(row["questions"] == 7 for row in result["skills"].values())


def test_it_generates_one_word_and_stops(demo: Any) -> None:
    model, processor = demo
    scene, asked = scene_at(HELD_OUT_SEED, 1)
    texts = [demo_prompt(q.text) for q in asked]
    inputs = processor(images=[scene.image] * len(asked), text=texts, return_tensors="pt", padding=True)
    out = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    answers = processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert all(len(a.split()) == 1 for a in answers)
    assert sum(a == q.answer for a, q in zip(answers, asked, strict=True)) >= 0.6 * len(asked)


def test_an_enlarged_picture_is_the_same_picture(demo: Any) -> None:
    image = Image.fromarray(scene_at(HELD_OUT_SEED, 2)[0].image)
    _, processor = demo
    small, large = (
        processor.image_processor(i, return_tensors="pt")["pixel_values"]
        for i in (image, image.resize((448, 448), Image.Resampling.NEAREST))
    )
    torch.testing.assert_close(small, large)


def test_the_interval_holds_the_share() -> None:
    low, high = interval(80, 100)
    assert (round(low, 3), round(high, 3)) == (0.711, 0.867)  # Wilson 1927, 80 of 100
    assert interval(0, 50)[0] == pytest.approx(0, abs=1e-12)


def test_scene_draws_a_picture_and_prints_answers(tmp_path: Path) -> None:
    for i in range(2):
        done = CliRunner().invoke(app, ["scene", str(tmp_path / f"{i}.png"), "--seed", "3"])
        assert done.exit_code == 0, done.output
        assert "existence" in done.output and "relation" in done.output
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    assert Image.open(tmp_path / "0.png").size == (448, 448)


@pytest.mark.parametrize(("ending", "kind"), [("jpg", "JPEG"), ("JPEG", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_a_scene_is_written_as_its_name_says(ending: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{ending}"
    assert CliRunner().invoke(app, ["scene", str(file), "--seed", "3"]).exit_code == 0
    with Image.open(file) as picture:
        assert picture.format == kind


@pytest.mark.parametrize("name", ["x", "x.txt"])
def test_a_scene_of_no_format_is_refused(name: str, tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["scene", str(tmp_path / "new" / name)])
    assert refused.exit_code == 2 and "tells no format of a picture" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dash_is_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["eval", "--limit", "9", "--json", "-"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["questions"] == 9 and "existence" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_eval_writes_json_and_refuses_an_empty_folder(tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["eval", "--limit", "9", "--validation", "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["questions"] == 9 and written["seed"] == VALIDATION_SEED
    assert "9 validation questions" in done.output
    refused = runner.invoke(app, ["eval", "--model", str(tmp_path)])
    assert refused.exit_code != 0
    assert "config.json" in refused.output


@pytest.mark.parametrize("command", [[], ["scene"], ["eval"]])
def test_help_is_complete(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output
