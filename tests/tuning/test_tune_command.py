"""`duet tune` from the command line: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from saved import photo, save
from typer.testing import CliRunner

from duet_vlm import DuetConfig
from duet_vlm.cli.main import app
from duet_vlm.evaluation.answering import Asker
from duet_vlm.tuning.tune import THRESHOLDS

QUESTIONS = ("what color is the star ?", "is there a red circle ?", "how many circles are there ?")
PICTURES = 36


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    save(folder / "model")
    for n in range(PICTURES):
        photo(folder / f"{n}.png", 40 + n, 60)
    lines = [
        {"id": f"q{n}", "image": f"{n % PICTURES}.png", "question": QUESTIONS[n % 3], "category": "abc"[n % 3]}
        for n in range(2 * PICTURES)
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def tune(here: Path, out: Path, *more: Any) -> Any:
    words = ["tune", "--model", here / "model", "--data", here / "q.jsonl", "--out", out, "--batch-size", "12"]
    words += ["--max-new-tokens", "2", "--method", "duet", "random", "--keep", "0.9", "0.3", *more]
    return CliRunner().invoke(app, list(map(str, words)))


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "tune.json").read_text())
    return found


def test_it_writes_what_the_answers_say(here: Path, tmp_path: Path) -> None:
    found = tune(here, tmp_path / "out", "--retain", "0.05")
    assert found.exit_code == 0, found.output
    told = results(tmp_path / "out")
    chosen = told["chosen"]
    config = DuetConfig.load(tmp_path / "out" / "duet.json")
    row = next(one for one in told["runs"] if one["label"] == chosen["name"])
    assert config == DuetConfig.from_dict(row["config"])
    promise = json.loads((tmp_path / "out" / "duet.json").read_text())["promise"]
    assert promise["at_least"] == pytest.approx(chosen["lower"], abs=1e-6) and promise["at_least"] >= 0.05
    # by hand: without right answers, those of the full model are
    lines = [json.loads(line) for line in next((tmp_path / "out" / "parts").glob("*.jsonl")).read_text().splitlines()]
    answers = {(one["method"], one["budget"], one["id"]): one["answer"] for one in lines}
    ours = {name: text for (m, b, name), text in answers.items() if (m, b) == (row["method"], row["budget"])}
    agree = [text == answers["none", None, name] for name, text in ours.items()]
    seen = [one for one in (told["rounds"][-1] + told["tested"]) if one["name"] == chosen["name"]]
    assert sum(agree) == round(sum(one["share"] * one["questions"] for one in seen))
    page = (tmp_path / "out" / "report.html").read_text()
    assert chosen["name"] in page and "What breaks first" in page and "data:image/png" in page


def test_stopped_anywhere_it_goes_on_and_ends_alike(here: Path, tmp_path: Path, monkeypatch: Any) -> None:
    assert tune(here, tmp_path / "whole", "--retain", "0.05").exit_code == 0
    asked, own = [0], Asker.ask

    def stopping(self: Asker, *words: Any) -> Any:
        asked[0] += 1
        if asked[0] in (4, 9, 15):
            raise KeyboardInterrupt
        return own(self, *words)

    monkeypatch.setattr(Asker, "ask", stopping)
    codes = [tune(here, tmp_path / "stopped", "--retain", "0.05").exit_code for _ in range(4)]
    assert codes == [130, 130, 130, 0]
    whole, stopped = results(tmp_path / "whole"), results(tmp_path / "stopped")
    for name in ("chosen", "nearest", "tested", "rounds"):
        assert whole[name] == stopped[name]


def test_none_keeps_it_is_an_answer(here: Path, tmp_path: Path) -> None:
    found = tune(here, tmp_path / "out", "--retain", "0.999")
    assert found.exit_code == 3, found.output
    assert "No setting was shown to keep 99.9%" in found.output.replace("\n", " ")
    assert not (tmp_path / "out" / "duet.json").exists()
    assert results(tmp_path / "out")["nearest"]["lower"] < 0.999


def test_agree_notes_leads_and_writes_the_threshold(here: Path, tmp_path: Path) -> None:
    found = tune(here, tmp_path / "out", "--agree", "0.02")
    assert found.exit_code == 0, found.output
    told = results(tmp_path / "out")
    assert DuetConfig.load(tmp_path / "out" / "duet.json").fallback == (told["chosen"]["threshold"] or None)
    assert [one["threshold"] for one in told["tested"]] == list(THRESHOLDS[: len(told["tested"])])
    lines = [json.loads(line) for line in next((tmp_path / "out" / "parts").glob("*.jsonl")).read_text().splitlines()]
    assert all(("margin" in line) == (line["method"] != "none") for line in lines)
    assert not any(line.get("fell_back") for line in lines)


def test_a_time_limit_is_noted_so_that_the_same_is_decided_again(here: Path, tmp_path: Path) -> None:
    first = tune(here, tmp_path / "out", "--retain", "0.05", "--time-limit", "0.0001")
    told = results(tmp_path / "out")
    assert len(told["rounds"]) == 1
    assert first.exit_code == 3
    assert json.loads((tmp_path / "out" / "retain-0.05-0.9-plan.json").read_text()) == {"rounds": 1, "questions": 0}
    assert tune(here, tmp_path / "out", "--retain", "0.05").exit_code == 3


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--retain", "0.9", "--agree", "0.9"), "two goals"),
        (("--retain", "1.5"), "must be a share above 0"),
        (("--retain", "0.9", "--confidence", "1"), "--confidence 1"),
        (("--retain", "0.9", "--limit", "20"), "20 images are too few"),
    ],
)
def test_what_is_refused(more: tuple[str, ...], why: str, here: Path, tmp_path: Path) -> None:
    found = tune(here, tmp_path / "out", *more)
    assert found.exit_code == 2
    assert why in found.output.replace("\n", " ")
