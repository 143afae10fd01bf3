"""Settings in a file of their own, and the option that takes it in every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.cli.main import app

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
