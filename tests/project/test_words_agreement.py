"""The page on words prints what was measured, and what was measured is what the code gives."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from duet_vlm.stage2 import words

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "words"
RECORDED = json.loads((FOLDER / "agreement.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "words.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def agreement():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("agreement", FOLDER / "agreement.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_five_hundred_questions_and_no_question_of_development_among_them(agreement):
    asked = [text for _, text in agreement.questions("questions.txt")]
    development = [text for _, text in agreement.questions("development.txt")]
    assert len(asked) == len(set(asked)) == RECORDED["count"] == 500
    assert len(development) == 100 and not set(asked) & set(development)


def test_the_page_prints_the_recorded_figures():
    for level in ("words", "tokens"):
        cells = [level]
        for rate in ("agreement", "precision", "recall"):
            value, (low, high) = RECORDED[level][rate]["value"], RECORDED[level][rate]["interval"]
            assert low <= value <= high
            cells.append(f"{value:.1%} ({low:.1%} to {high:.1%})")
        assert f"| {' | '.join(cells)} |" in PAGE
    assert f"{RECORDED['questions_with_the_same_words']} of the 500 questions have the same words" in PAGE
    assert RECORDED["reference"] in PAGE


def test_the_page_lists_every_difference():
    listed: list[tuple[str, str]] = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[2] in ("spaCy", "built-in rule"):
            found = re.findall(r"\"([^\"]+)\"(?: \((\d+)\))?", cells[0])
            group = [(word, cells[2]) for word, times in found for _ in range(int(times or 1))]
            assert len(group) == int(cells[1])
            listed += group
    assert sorted(listed) == sorted((d["word"], d["salient_for"]) for d in RECORDED["differences"])


def test_the_recorded_differences_are_those_of_today(agreement, monkeypatch):
    assert words.finder("en") == RECORDED["reference"], "measure again: python results/words/agreement.py"
    asked = list(dict.fromkeys((d["kind"], d["question"]) for d in RECORDED["differences"]))
    monkeypatch.setattr(agreement, "questions", lambda name: asked)
    assert agreement.measure("those that differ")["differences"] == RECORDED["differences"]


@pytest.mark.long
def test_measuring_again_gives_the_recorded_figures(agreement):
    found = agreement.measure("questions.txt")
    for figures in (found, recorded := dict(RECORDED)):
        figures.pop("versions")
    assert found == recorded


def test_rates_by_hand(agreement):
    """Three questions; 4 words chosen by both, 1 by the rule alone, 2 by spaCy alone, 3 by neither."""
    rows = [[2, 1, 0, 1], [1, 0, 1, 2], [1, 0, 1, 0]]
    found = agreement.summary(rows)
    assert (found["both"], found["built_in_alone"], found["spacy_alone"], found["neither"]) == (4, 1, 2, 3)
    assert found["agreement"]["value"] == 0.7 and found["precision"]["value"] == 0.8
    assert found["recall"]["value"] == round(4 / 6, 4)
    same = agreement.summary([[1, 0, 1, 2]] * 50)
    assert same["agreement"] == {"value": 0.75, "interval": [0.75, 0.75]}
    assert agreement.counts([True, True, False, False], [True, False, True, False]) == [1, 1, 1, 1]
