"""`duet eval` from a manifest to its report: figures, a stop and a new start, several processes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from eval_cases import duet, nine_questions, options
from PIL import Image
from saved import LAYERS, PATCHES

from duet_vlm import DuetConfig
from duet_vlm.console.processes import Process
from duet_vlm.evaluation.answering import Asker
from duet_vlm.evaluation.evaluate import evaluate
from duet_vlm.evaluation.records import read_manifest
from duet_vlm.evaluation.runs import Run
from duet_vlm.inputs.checkpoints import read_model

TIMES = {"seconds", "ttft_ms"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nine_questions(tmp_path_factory.mktemp("eval"))


@pytest.fixture(scope="module")
def loaded(here: Path) -> tuple[Any, Any]:
    return read_model(str(here / "model"), "float32", "cpu")


def answers_of(folder: Path) -> list[dict[str, Any]]:
    """All answers, without the times."""
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def figures_of(folder: Path) -> list[dict[str, Any]]:
    runs = json.loads((folder / "results.json").read_text())["runs"]
    return [{name: value for name, value in run.items() if name not in TIMES} for run in runs]


@pytest.fixture(scope="module")
def out(here: Path) -> Path:
    """The folder of a whole run from the command line."""
    result = duet(*options(here, here / "out"))
    assert result.exit_code == 0, result.output
    for text in ("none", "duet", "random", "0.25", "95% interval", "first token", "existence"):
        assert text in result.stdout
    return here / "out"


def test_results_have_the_promised_structure(out: Path) -> None:
    results = json.loads((out / "results.json").read_text())
    assert [(r["method"], r["budget"]) for r in results["runs"]] == [
        ("none", None), ("duet", 0.5), ("duet", 0.25), ("random", 0.5), ("random", 0.25),
    ]  # fmt: skip
    for run in results["runs"]:
        assert {
            "method", "budget", "tokens_in", "tokens_avg", "tokens_last", "kv_bytes", "n", "accuracy", "retained",
            "ci95", "ttft_ms", "seconds", "categories",
        } <= set(run)  # fmt: skip
        assert run["n"] == 9 and run["seconds"] > 0 and run["ttft_ms"] > 0
        assert set(run["categories"]) == {"color", "existence", "counting"}
        assert run["categories"]["existence"]["n"] == 3
        # POPE's figures where they belong
        assert "f1" in run["yes_no"] and "yes_no" in run["categories"]["existence"]
        assert "yes_no" not in run["categories"]["color"]
        if run["budget"]:
            assert abs(run["tokens_avg"] - run["budget"] * PATCHES) <= 0.5
    assert results["seed"] == 0 and results["sources"] == 2 and results["skipped"] == []
    assert {"settings", "versions", "hardware", "command"} <= set(results)
    full = results["runs"][0]
    assert full["tokens_in"] == full["tokens_avg"] == full["tokens_last"] == PATCHES


def test_figures_are_means_of_the_answers(out: Path) -> None:
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == 5 * 9
    for run in json.loads((out / "results.json").read_text())["runs"]:
        own = [x for x in lines if (x["method"], x["budget"]) == (run["method"], run["budget"])]
        assert len({x["id"] for x in own}) == 9
        assert run["accuracy"] == pytest.approx(sum(x["score"] for x in own) / 9, abs=1e-6)
        assert run["seconds"] == pytest.approx(sum(x["seconds"] for x in own), abs=0.001)
        assert sum(x["ttft_ms"] is not None for x in own) == 3  # the first of every batch


def test_pictures_and_page(out: Path) -> None:
    for name in ("pareto.png", "categories.png"):
        with Image.open(out / name) as picture:
            picture.load()
            assert picture.width > 800
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    # nothing from elsewhere
    assert not re.search(r"<(script|link)|url\(|src=[\"'](?!data:)", page)


def test_one_after_the_other_gives_the_same_answers_and_kv_bytes_of_the_cache(
    loaded: tuple[Any, Any], here: Path, out: Path
) -> None:
    import duet_vlm

    model, processor = loaded
    records, _ = read_manifest(here / "questions.jsonl")
    batched = {(x["method"], x["budget"], x["id"]): x for x in answers_of(out)}
    asker = Asker(model, processor, 2)
    for run in (Run("none", DuetConfig()), Run("duet", DuetConfig.preset("duet", model=model, keep=0.25), 0.25)):
        for record in records[:4]:
            alone = asker.prepare([record], [record.image()])
            found, said = asker.ask(run, alone)[0], batched[*run.key, record.id]
            assert found.text == said["answer"]
            assert found.kv_bytes == said["kv_bytes"] and found.tokens_in == said["tokens_in"]
            with duet_vlm.apply(model, run.config, tokenizer=processor):
                cache = model(**alone.inputs, use_cache=True).past_key_values
            held = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
            assert found.kv_bytes == held and len(cache.layers) == LAYERS
    assert not model._forward_pre_hooks  # stock again


def test_killed_anywhere_nothing_is_lost_or_counted_twice(
    here: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Asker.ask
    for stop in (3, 8, 12):
        calls = iter(range(stop))

        def dies(self: Asker, run: Any, batch: Any, calls: Any = calls) -> Any:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return ask(self, run, batch)

        monkeypatch.setattr(Asker, "ask", dies)
        assert duet(*options(here, tmp_path / "out")).exit_code != 0
        part = tmp_path / "out" / "parts" / "answers-0.jsonl"
        with part.open("ab") as file:
            file.write(b'{"method": "duet", "budget": 0.5, "id": "q8", "ans')  # half a line
    monkeypatch.setattr(Asker, "ask", ask)
    done = part.read_bytes().count(b"\n")
    assert 0 < done < 45
    assert duet(*options(here, tmp_path / "out")).exit_code == 0
    assert answers_of(tmp_path / "out") == answers_of(out)
    assert figures_of(tmp_path / "out") == figures_of(out)
    # a finished one only reports again
    monkeypatch.setattr(Asker, "prepare", None)
    monkeypatch.setattr("duet_vlm.evaluation.page.write_page", lambda *_: None)
    assert duet(*options(here, tmp_path / "out")).exit_code == 0
    assert answers_of(tmp_path / "out") == answers_of(out)


def test_two_processes_give_the_same_table(loaded: tuple[Any, Any], here: Path, out: Path, tmp_path: Path) -> None:
    records, _ = read_manifest(here / "questions.jsonl")
    model, processor = loaded
    settings = json.loads((out / "settings.json").read_text())["runs"]
    runs = [Run(x["method"], DuetConfig.from_dict(x["config"]), x["budget"]) for x in settings]
    for rank in (1, 0):
        found = evaluate(
            model, processor, records, runs, tmp_path, batch_size=4, max_new_tokens=2, process=Process(rank, 2, rank)
        )
        assert (found is None) == (rank == 1)
        if rank == 1:
            assert 0 < len((tmp_path / "parts" / "answers-1.jsonl").read_text().splitlines()) < 45
    assert answers_of(tmp_path) == answers_of(out)
    assert figures_of(tmp_path) == figures_of(out)


def test_processes_are_told_by_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Process.this() == Process(0, 1, 0) and Process.this().device("cuda") == "cuda"
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert Process.this() == Process(3, 4, 1)
    assert Process.this().device("cuda") == "cuda:1" and Process.this().device("cpu") == "cpu"


def test_a_folder_of_another_run_is_refused(here: Path, out: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    for more, what in (
        (["--seed", "1"], "seed was 0 and is 1 now"),
        (["--batch-size", "8"], "batch_size was 4 and is 8 now"),
        (["--max-new-tokens", "3"], "max_new_tokens was 2 and is 3 now"),
        (["--dtype", "bfloat16"], 'dtype was "float32" and is "bfloat16" now'),
    ):
        result = duet(*options(here, out, *more))
        assert result.exit_code == 2, result.output
        assert f"belongs to another run: its {what}; give another folder." in result.stderr
    assert before == {file.name: file.read_bytes() for file in out.iterdir()}
    (tmp_path / "thesis.tex").write_text("")
    result = duet(*options(here, tmp_path))
    assert result.exit_code == 2 and "holds other files (thesis.tex): give a new or empty one" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]
