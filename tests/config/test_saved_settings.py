"""Settings in a file of their own, and the option that takes it in every command."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eval_cases import nine_questions
from pydantic import ValidationError
from typer.testing import CliRunner

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.cli.main import app
from duet_vlm.demo.model import config as demo_config
from duet_vlm.serving.answering import Answer
from duet_vlm.serving.metrics import Metrics
from duet_vlm.training.settings import Compression

CONFIG = DuetConfig(dominant=20, contextual=4, drops=[Drop(6, 0.5), Drop(9, 0.0)])


@pytest.mark.parametrize("config", [CONFIG, DuetConfig(dominant=0.25, fallback=0.2), DuetConfig()])
def test_what_is_saved_is_read_back(config: DuetConfig, tmp_path: Path) -> None:
    config.save(tmp_path / "duet.json")
    assert DuetConfig.load(str(tmp_path / "duet.json")) == config
    assert json.loads((tmp_path / "duet.json").read_text()) == json.loads(json.dumps(config.to_dict()))


def test_a_promise_stands_beside_the_settings_and_makes_none(tmp_path: Path) -> None:
    CONFIG.save(tmp_path / "duet.json", promise={"at_least": 0.99})
    data = json.loads((tmp_path / "duet.json").read_text())
    assert (data["promise"], data["version"]) == ({"at_least": 0.99}, 3)
    assert DuetConfig.load(tmp_path / "duet.json") == DuetConfig.from_dict(data) == CONFIG


def test_an_older_package_reads_what_has_no_newer_setting() -> None:
    assert CONFIG.to_dict()["version"] == 1
    assert "fallback" not in CONFIG.to_dict()
    assert DuetConfig(dominant=20, fallback=0).to_dict()["version"] == 3


@pytest.mark.parametrize("text", ["", "[1]", '{"tokens": 3}', '{"version": 9, "drops": []}', None])
def test_what_is_no_file_of_settings_is_refused(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DuetError):
        DuetConfig.load(file)


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DuetError, match="cannot be saved"):
        CONFIG.save(tmp_path / "no" / "duet.json")


def run(*words: Any) -> Any:
    return CliRunner().invoke(app, list(map(str, words)))


def test_config_takes_it_where_a_method_is_chosen(tmp_path: Path) -> None:
    CONFIG.save(tmp_path / "duet.json", promise={"at_least": 0.99})
    file = tmp_path / "duet.json"
    found = run("budget", "--model", "demo", "--config", file, "--json", "-")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["config"] == json.loads(json.dumps(CONFIG.to_dict()))
    both = run("budget", "--model", "demo", "--method", "duet", file, "--keep", "0.2", "--json", "-")
    assert both.exit_code == 0, both.output
    assert [one["method"] for one in json.loads(both.stdout)["budgets"]] == ["duet", str(file)]


def test_serve_hands_it_to_vllm_and_refuses_a_fallback_there(tmp_path: Path) -> None:
    CONFIG.save(tmp_path / "duet.json", promise={"at_least": 0.99})
    found = run("serve", "--config", tmp_path / "duet.json", "--engine", "vllm", "--print")
    assert found.exit_code == 0, found.output
    words = shlex.split(found.stdout)
    given = json.loads(words[words.index("--hf-overrides") + 1])
    assert DuetConfig.from_dict(given["duet"]) == CONFIG
    replace(CONFIG, fallback=0.2).save(tmp_path / "guarded.json")
    found = run("serve", "--config", tmp_path / "guarded.json", "--engine", "vllm", "--print")
    assert found.exit_code == 2
    assert "fallback is not possible in vLLM" in found.output.replace("\n", " ")


def test_a_training_file_names_it_as_its_method(tmp_path: Path) -> None:
    CONFIG.save(tmp_path / "duet.json")
    compression = Compression(method=str(tmp_path / "duet.json"))
    assert compression.config(demo_config()) == CONFIG
    with pytest.raises(ValidationError, match="brings its budget"):
        Compression(method=str(tmp_path / "duet.json"), keep=0.2)


def test_eval_counts_both_readings_of_what_fell_back(tmp_path: Path) -> None:
    here = nine_questions(tmp_path)
    config = DuetConfig(dominant=2, contextual=1, drops=[Drop(2, 0.5)], query="last")
    for name, threshold in (("never", 0.0), ("ever", 1.0)):
        replace(config, fallback=threshold).save(here / f"{name}.json")
    found = run(
        "eval", "--model", here / "model", "--data", here / "questions.jsonl", "--max-new-tokens", "2",
        "--method", "none", here / "never.json", here / "ever.json", "--out", here / "out",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    full, never, ever = json.loads((here / "out" / "results.json").read_text())["runs"]
    assert (never["fell_back"], ever["fell_back"]) == (0, 1)
    assert ever["tokens_avg"] == pytest.approx(never["tokens_avg"] + full["tokens_avg"])
    assert (ever["kv_bytes"], ever["accuracy"]) == (full["kv_bytes"], full["accuracy"])
    assert never["kv_bytes"] < full["kv_bytes"]


def test_the_server_counts_what_fell_back() -> None:
    metrics = Metrics()
    for fell_back in (True, False, True):
        metrics.count(Answer("red", False, 20, 2, 10, 4.0, fell_back), 0.1, 0.2)
    assert "duet_fallback_total 2.0" in metrics.text().decode()


def test_it_brings_its_budget(tmp_path: Path) -> None:
    CONFIG.save(tmp_path / "duet.json")
    found = run("budget", "--model", "demo", "--config", tmp_path / "duet.json", "--keep", "0.2")
    assert found.exit_code == 2
    assert "brings its budget" in found.output


def test_a_command_that_chooses_no_method_refuses_it(tmp_path: Path) -> None:
    CONFIG.save(tmp_path / "settings.yaml")
    found = run("budget", "--model", "demo", "--config", tmp_path / "settings.yaml")
    assert found.exit_code == 2
    assert "end its name with .json" in found.output
