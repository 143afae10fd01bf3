"""An evaluation folder goes on: only what is missing is asked, what differs is named, what is saved can be asked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from saved import PATCHES, photo, save
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from duet_vlm import DuetConfig
from duet_vlm.cli.main import app
from duet_vlm.console.processes import Process
from duet_vlm.evaluation.answering import Asker
from duet_vlm.evaluation.evaluate import evaluate, line
from duet_vlm.evaluation.records import Record
from duet_vlm.evaluation.runs import Run

QUESTIONS = ("what color is the star ?", "is there a red circle ?", "how many circles are there ?")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("going-on")
    save(folder / "model")
    for name, size in (("a", (90, 90)), ("b", (120, 200)), ("c", (64, 64))):
        photo(folder / f"{name}.png", *size)
    manifest(folder / "q.jsonl", 10)
    return folder


def manifest(file: Path, count: int, **changes: Any) -> Path:
    lines = [
        {"id": f"q{n}", "image": f"{'abc'[n % 3]}.png", "question": QUESTIONS[n % 3], "answer": "red"} | changes
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def duet(here: Path, out: Path, *more: Any, methods: tuple[str, ...] = ("random",)) -> Any:
    arguments = [
        "eval", "--model", here / "model", "--data", here / "q.jsonl", "--batch-size", "4", "--max-new-tokens", "2",
        "--out", out, "--methods", *methods, *more,
    ]  # fmt: skip
    return CliRunner().invoke(app, list(map(str, arguments)))


def answers_of(out: Path) -> dict[tuple[str, float | None, str], dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    keys = [(line["method"], line["budget"], line["id"]) for line in lines]
    assert len(keys) == len(set(keys))
    rest = [{name: value for name, value in x.items() if name not in ("seconds", "ttft_ms")} for x in lines]
    return dict(zip(keys, rest, strict=True))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often a record was answered under a run."""
    found: Counter[tuple[str, str]] = Counter()

    def counts(run: Run, record: Record, *more: Any) -> Any:
        found[run.label, record.id] += 1
        return line(run, record, *more)

    monkeypatch.setattr("duet_vlm.evaluation.evaluate.line", counts)
    return found


def test_methods_budgets_and_questions_are_added_and_only_what_is_missing_is_asked(
    here: Path, tmp_path: Path, asked: Counter[tuple[str, str]]
) -> None:
    out = tmp_path / "out"
    first = duet(here, out, "--keep", "0.5", "--limit", "5")
    assert first.exit_code == 0 and "already" not in first.stderr, first.output
    assert set(json.loads((out / "records.jsonl").read_text().splitlines()[4])) > {"id", "question", "content"}
    before = answers_of(out)
    assert len(before) == 2 * 5
    asked.clear()
    more = duet(here, out, "--keep", "0.5", "0.25", "--limit", "10", methods=("random", "duet"))
    assert more.exit_code == 0, more.output
    assert f"{out} has 10 of 50 answers already." in more.stderr
    runs = ("none", "random 0.5", "random 0.25", "duet 0.5", "duet 0.25")
    missing = {(run, f"q{n}") for run in runs for n in range(10) if n >= 5 or run not in ("none", "random 0.5")}
    assert asked == Counter(missing)
    # a run in one piece has the same answers, those that were drawn at random too
    assert duet(here, tmp_path / "whole", "--keep", "0.5", "0.25", methods=("random", "duet")).exit_code == 0
    assert answers_of(out) == answers_of(tmp_path / "whole")
    assert before.items() <= answers_of(out).items()
    asked.clear()
    less = duet(here, out, "--keep", "0.25", "--limit", "3")
    assert less.exit_code == 0 and not asked, less.output
    assert "has 6 of 6 answers already; only the report is made again." in less.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["questions"] == 3 and [run["method"] for run in results["runs"]] == ["none", "random"]
    assert answers_of(out) == answers_of(tmp_path / "whole")  # nothing that was answered is lost


def evaluated(here: Path, out: Path, records: list[Record], runs: list[Run], **more: Any) -> Any:
    model = AutoModelForImageTextToText.from_pretrained(here / "model").eval()
    processor = AutoProcessor.from_pretrained(here / "model")
    return evaluate(model, processor, records, runs, out, max_new_tokens=2, **more)


def test_what_differs_is_named_with_both_values(here: Path, tmp_path: Path) -> None:
    record = Record("q", QUESTIONS[0], ("red",), here / "a.png", category="color")
    narrow, wide = DuetConfig(dominant=20, contextual=4), DuetConfig(dominant=30, contextual=4)
    evaluated(here, tmp_path, [record], [Run("mine", narrow, 0.5)], about={"model": "A", "note": "x"})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other = Record("q", QUESTIONS[1], ("red",), here / "a.png", category="color")
    picture = Record("q", QUESTIONS[0], ("red",), here / "b.png", category="color")
    for asked, run, about, what in (
        (record, Run("mine", wide, 0.5), {"note": "x"}, "its mine 0.5 had dominant 20 and has 30 now"),
        (record, Run("mine", narrow, 0.5), {"note": "y"}, 'its note was "x" and is "y" now'),
        (other, Run("mine", narrow, 0.5), {"note": "x"},
         f'its record \'q\' had question "{QUESTIONS[0]}" and has "{QUESTIONS[1]}" now'),
        (picture, Run("mine", narrow, 0.5), {"note": "x"}, "its record 'q' had content "),
        (Record("r", QUESTIONS[0], ("red",), here / "a.png"), Run("mine", narrow, 0.5), {"note": "x", "data": "B"},
         "it answers other records (of None, and now 'B')"),
    ):  # fmt: skip
        with pytest.raises(ValueError) as caught:
            evaluated(here, tmp_path, [asked], [run], about=about)
        assert f"belongs to another run: {what}" in str(caught.value) and "\n" not in str(caught.value)
    model = AutoModelForImageTextToText.from_pretrained(here / "model")
    model.lm_head.weight.data.flatten()[0] += 1
    with pytest.raises(ValueError, match=r"its weights are others \(its model was 'A' and is 'B' now\)"):
        evaluate(model, AutoProcessor.from_pretrained(here / "model"), [record], [], tmp_path, max_new_tokens=2,
                 about={"model": "B", "note": "x"})  # fmt: skip
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_a_picture_that_was_put_right_is_asked_at_the_next_start(here: Path, tmp_path: Path) -> None:
    whole = (here / "a.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[:80])
    records = [Record(f"q{n}", QUESTIONS[n], ("red",), file) for n, file in
               enumerate((here / "a.png", tmp_path / "half.png", here / "b.png"))]  # fmt: skip
    out = tmp_path / "out"
    assert [one["id"] for one in evaluated(here, out, records, [], batch_size=1)["skipped"]] == ["q1"]
    (tmp_path / "half.png").write_bytes(whole)
    # of two processes the first takes what was wrong
    assert evaluated(here, out, records, [], batch_size=1, process=Process(1, 2, 1)) is None
    results = evaluated(here, out, records, [], batch_size=1, process=Process(0, 2, 0))
    assert results is not None and results["skipped"] == [] and results["questions"] == 3


def test_ctrl_c_says_how_to_go_on(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Asker, "ask", stops)
    result = duet(here, tmp_path / "out", "--keep", "0.5")
    assert result.exit_code == 130
    assert f"duet: stopped; the same command goes on with the answers in {tmp_path / 'out'}." in result.stderr


def test_saved_is_what_the_models_config_brings(here: Path, tmp_path: Path) -> None:
    refused = duet(here, tmp_path / "no", methods=("saved",))
    assert refused.exit_code == 2 and "method 'saved' needs settings in the model's config.json" in refused.stderr
    model = AutoModelForImageTextToText.from_pretrained(here / "model")
    mine = DuetConfig.preset("duet", model=model, tokens=22)
    model.config.duet = mine.to_dict()
    trained = tmp_path / "trained"
    model.save_pretrained(trained / "model")
    AutoProcessor.from_pretrained(here / "model").save_pretrained(trained / "model")
    for name in ("q.jsonl", "a.png", "b.png", "c.png"):
        (trained / name).write_bytes((here / name).read_bytes())
    named = duet(trained, tmp_path / "named", "--limit", "3", methods=("saved",))
    assert named.exit_code == 0 and "saved: the settings in the model's own config" in named.stdout, named.output
    runs = json.loads((tmp_path / "named" / "results.json").read_text())["runs"]
    assert [(run["method"], run["budget"]) for run in runs] == [("none", None), ("saved", None)]
    assert (runs[0]["tokens_avg"], runs[0]["difference"]) == (PATCHES, None)
    assert runs[1]["tokens_avg"] == pytest.approx(22, abs=0.5)
    settings = json.loads((tmp_path / "named" / "settings.json").read_text())["runs"]
    assert DuetConfig.from_dict(settings[1]["config"]) == mine
    # without methods and budgets they stand too, and beside others
    arguments = ["eval", "--model", trained / "model", "--data", trained / "q.jsonl", "--limit", 3]
    for number, (more, methods) in enumerate(
        (([], ["none", "saved"]), (["--methods", "saved", "random", "--keep", "0.5"], ["none", "saved", "random"]),
         (["--keep", "0.5"], ["none", "duet"]))
    ):  # fmt: skip
        out = tmp_path / f"{number}"
        result = CliRunner().invoke(app, list(map(str, [*arguments, *more, "--max-new-tokens", 2, "--out", out])))
        assert result.exit_code == 0, result.output
        assert [run["method"] for run in json.loads((out / "results.json").read_text())["runs"]] == methods


def test_lines_beyond_the_limit_are_not_told(here: Path, tmp_path: Path) -> None:
    lines = (here / "q.jsonl").read_text().splitlines()
    lines[1:1] = ["{no json"]
    (tmp_path / "q.jsonl").write_text("\n".join([*lines[:6], "[]", *lines[6:], "also no json"]) + "\n")
    (tmp_path / "model").symlink_to(here / "model")
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes((here / name).read_bytes())
    result = duet(tmp_path, tmp_path / "few", "--keep", "0.5", "--limit", "5")
    assert result.exit_code == 0 and "line 2: " in result.stderr, result.output
    assert "line 7" not in result.stderr and "line 13" not in result.stderr
    assert "Not evaluated: 1 of 6 records; see results.json." in result.stdout
    strict = duet(tmp_path, tmp_path / "strict", "--keep", "0.5", "--limit", "5", "--strict")
    assert strict.exit_code == 2 and "line 2: " in strict.stderr
    everything = duet(tmp_path, tmp_path / "all", "--keep", "0.5")
    assert "Not evaluated: 3 of 13 records; see results.json." in everything.stdout
