"""Manifests and their bad lines, the built-in benchmark, the runs that are asked for, several values per option."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import saved

from duet_vlm.demo.evaluate import HELD_OUT_SEED, examples
from duet_vlm.demo.questions import SKILLS
from duet_vlm.evaluation import benchmark
from duet_vlm.evaluation.ablations import ablation_runs
from duet_vlm.evaluation.records import read_manifest
from duet_vlm.evaluation.request import read_data
from duet_vlm.evaluation.runs import runs_of
from duet_vlm.pages.asking import SKILLS as PAGE_SKILLS
from duet_vlm.pages.splits import HELD_OUT_SEED as HELD_OUT_PAGES
from duet_vlm.pages.splits import page_at


def manifest(folder: Path, *lines: Any) -> Path:
    saved.photo(folder / "a.png")
    file = folder / "questions.jsonl"
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


GOOD = {"image": "a.png", "question": "what color ?", "answer": "red"}


def test_a_good_manifest(tmp_path: Path) -> None:
    file = manifest(
        tmp_path,
        GOOD,
        "",
        GOOD | {"id": "x", "category": "color", "metric": "exact_match"},
        {"id": 7, "image": "a.png", "question": "dog ?", "answers": ["a"] * 10, "metric": "vqa"},
    )
    records, problems = read_manifest(file)
    assert not problems
    assert [(r.id, r.line) for r in records] == [("1", 1), ("x", 3), ("7", 4)]
    assert records[1].category == "color" and records[2].expected == ("a",) * 10
    assert len({r.source for r in records}) == 1 and records[0].image().size == (200, 160)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'image': 1}", "this is not JSON"),
        ("[1]", "this is JSON, but no object"),
        (GOOD | {"image": "no.png"}, "no.png' does not exist: give a path"),
        (GOOD | {"metric": "bleu"}, "metric 'bleu' is unknown: choose one of exact_match, vqa"),
        (GOOD | {"id": "first"}, "id 'first' was used in line 1 already: give each its own."),
        (GOOD | {"id": [1]}, "id [1] must be a text or a whole number."),
        (GOOD | {"question": " "}, "question must be a text that is not empty."),
        (GOOD | {"answers": ["a"]}, "answer and answers are both given"),
        (GOOD | {"colour": "red"}, "field 'colour' is unknown: a record has id, image"),
        (GOOD | {"video": "a.mp4"}, "give one of image and video"),
        ({"image": "a.png", "question": "why ?"}, "there is no right answer"),
        ({"question": "why ?", "answer": "so"}, "give one of image and video"),
        (GOOD | {"category": 3}, "category must be a text."),
    ],
)
def test_bad_lines_are_told_and_the_rest_is_kept(tmp_path: Path, line: Any, message: str) -> None:
    records, problems = read_manifest(manifest(tmp_path, GOOD | {"id": "first"}, line, GOOD | {"id": "last"}))
    assert [r.id for r in records] == ["first", "last"]
    assert [p.line for p in problems] == [2] and message in str(problems[0])


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist: give a JSONL file, 'demo' or 'pages'"):
        read_manifest(tmp_path / "none.jsonl")


def test_the_benchmark_is_the_held_out_scenes() -> None:
    records = benchmark.make_records(63)
    asked = [(scene, q) for scene, questions in examples(HELD_OUT_SEED, 63) for q in questions]
    assert [(r.question, r.expected[0], r.category) for r in records] == [(q.text, q.answer, q.skill) for _, q in asked]
    assert all(np.array_equal(r.image(), scene.image) for r, (scene, _) in zip(records[::7], asked[::7], strict=True))
    assert len({r.id for r in records}) == 63 and {r.category for r in records} == set(SKILLS)


@pytest.mark.parametrize("name", benchmark.SUITES)
def test_another_drawing_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmark.SUITES, name, replace(benchmark.SUITES[name], hash="0" * 64))
    with pytest.raises(ValueError, match="is not the published benchmark"):
        benchmark.make_records(63, name)


def test_the_pages_are_held_out_and_have_an_equal_number_of_questions_per_skill() -> None:
    records, problems = read_data("pages", 60)
    page, questions = page_at(HELD_OUT_PAGES, 0)
    assert not problems and Counter(r.category for r in records) == dict.fromkeys(PAGE_SKILLS, 10)
    first = [r for r in records if r.source == "000"]
    assert [(r.question, r.expected) for r in first] == [(q.text, (q.answer,)) for q in questions]
    assert np.array_equal(first[0].image(), page.image)


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        ("demo", 5001, r"limit 5001 must be 9, a question per skill, to 5000\."),
        ("pages", 5, r"limit 5 must be 6, a question per skill, to 2400\."),
    ],
)
def test_a_limit_outside_the_benchmark(name: str, limit: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        benchmark.make_records(limit, name)


def test_runs_start_with_the_full_model_and_name_what_cannot_be_met() -> None:
    runs, problems = runs_of(saved.config(), ["visionzip", "none", "magic"], [], [0.5, 0.25])
    assert [run.label for run in runs] == ["none", "visionzip 0.5", "visionzip 0.25"]
    assert len(problems) == 1 and "method 'magic' is unknown" in problems[0].reason
    runs, problems = runs_of(saved.config(), ["duet"], [5000, 60], [])
    assert [run.label for run in runs] == ["none", "duet 60"]
    assert str(problems[0]).startswith("duet at 5000: ")
    runs, problems = runs_of(saved.config(), ["scope", "duet"], [], [], [0.9, 0.5])
    assert [run.label for run in runs] == ["none", "scope coverage 0.9", "scope coverage 0.5"]
    assert runs[1].config.coverage == 0.9 and all("coverage" in problem.reason for problem in problems)


@pytest.mark.parametrize(
    ("methods", "tokens", "keep", "message"),
    [
        (["duet"], [60.0], [0.5], "give one of them"),
        (["duet"], [], [], "there is no budget"),
        (["duet", "duet"], [], [0.5], "method duet is given twice"),
        (["duet"], [], [0.5, 0.5], "budget 0.5 is given twice"),
        (["magic"], [], [0.5], "method 'magic' is unknown"),
    ],
)
def test_runs_that_make_no_sense(methods: list[str], tokens: list[float], keep: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runs_of(saved.config(), methods, tokens, keep)


def test_ablations_change_one_thing_and_meet_the_budget() -> None:
    from duet_vlm.config.budget import tokens_per_layer
    from duet_vlm.demo.model import TEXT_LAYERS, VISUAL_TOKENS, config

    runs = ablation_runs(config(), 0.22)
    base = runs[0].config
    assert len({run.method for run in runs}) == len(runs)
    assert all(run.config != base for run in runs[1:])
    for run in runs:
        average = sum(tokens_per_layer(run.config, VISUAL_TOKENS, TEXT_LAYERS)) / TEXT_LAYERS
        assert abs(average - 0.22 * VISUAL_TOKENS) <= 0.5, run.method
    by_name = {run.method: run.config for run in runs}
    assert {c.cluster_width for c in by_name.values()} == {1, 2, 4, 6, 8}
    assert by_name["stage 1 alone"].drops == () and by_name["stage 1 alone"].merges
    assert not next(config for name, config in by_name.items() if name.startswith("stage 2 alone")).merges
