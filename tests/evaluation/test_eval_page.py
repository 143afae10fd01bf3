"""The page of `duet eval`: what is said in words, which answers counted, what is drawn, and that all is escaped."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from duet_vlm import DuetConfig
from duet_vlm.engine.trace import DropTrace, ImageTrace, SampleTrace, Trace
from duet_vlm.evaluation import examples
from duet_vlm.evaluation.examples import disagreements, drawn_runs, runs_of_the_smallest_budget
from duet_vlm.evaluation.metrics import METRICS, judged, right_answers
from duet_vlm.evaluation.page import environment, write_page
from duet_vlm.evaluation.plots import pareto, write_plots
from duet_vlm.evaluation.records import Record
from duet_vlm.evaluation.report import figures
from duet_vlm.evaluation.runs import Run, full_model
from duet_vlm.evaluation.table import apart_in_words, cells, confidence, kept_in_words, word_rows
from duet_vlm.families import Family
from duet_vlm.pictures import overlay
from duet_vlm.pictures.shading import GONE, MERGED

PEOPLE = ("purple", "Purple.", "a purple", "violet", "dunno", "purple", "purple", "purple", "purple", "purple")
RUNS = [full_model(), *(Run(m, DuetConfig(), b) for b in (0.5, 0.25) for m in ("duet", "random"))]


def results(images: int) -> tuple[list[Record], dict[Any, Any], dict[str, Any]]:
    """Half of the answers of "random" are wrong, none of the others."""
    records = [Record(f"<i>{n}", "<script>", ("a & b",), None, None, f"i{n}", "<u>") for n in range(images)]
    answers = {}
    for run in RUNS:
        for number, record in enumerate(records):
            right = run.method != "random" or number % 2 == 0
            answers[*run.key, record.id] = {
                "answer": "a & b" if right else "", "score": float(right), "kv_bytes": 1024, "seconds": 0.01,
                "tokens_in": 10, "tokens_avg": 10 * (run.budget or 1), "tokens_last": 5, "ttft_ms": 3.0,
            }  # fmt: skip
    return records, answers, figures(records, RUNS, answers, 0) | {
        "questions": len(records), "sources": images, "seed": 0, "command": "duet eval",
        "skipped": [{"line": 3, "id": None, "reason": "it is <b>"}, {"line": None, "id": None, "reason": "no & more"}],
        "settings": {"model": "m", "data": "d<", "batch_size": 4, "dtype": "float32"},
        "hardware": {"cpu": "a CPU", "threads": 1}, "versions": {"duet_vlm": "0", "torch": "0", "transformers": "0"},
    }  # fmt: skip


class Stub:
    """As much of an `Asker` as the page needs, where `kept_picture` is replaced."""

    processor, model = None, SimpleNamespace(config=None)

    def load_media(self, record: Record) -> Any:
        return Image.new("RGB", (8, 8))

    def prepare(self, *_: Any) -> Any:
        return SimpleNamespace(inputs={})

    def ask_with_trace(self, *_: Any) -> Any:
        return [], None


def written(images: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    records, answers, found = results(images)
    write_plots(found, folder)
    monkeypatch.setattr(examples, "kept_picture", lambda *_: Image.new("RGB", (20, 20)))
    write_page(Stub(), records, RUNS, answers, found, folder)  # type: ignore[arg-type]
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_one_file_in_which_every_text_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = written(12, tmp_path, monkeypatch)
    for text in ("&lt;script&gt;", "a &amp; b", "&lt;u&gt;", "line 3: it is &lt;b&gt;", "no &amp; more", "d&lt;"):
        assert text in page
    assert "<script" not in page and "<u>" not in page and "it is <b>" not in page
    assert not re.search(r"<link|url\(|src=[\"'](?!data:)", page)
    assert "(nothing)" in page  # an empty answer
    tags = re.findall(r"<(/?)(table|tr|td|div|figure|label|ul|p|h2|span)\b", page)
    for name in {tag for _, tag in tags}:
        assert [end for end, tag in tags if tag == name].count("/") == [t for _, t in tags].count(name) / 2, name


def test_every_picture_of_an_example_can_be_enlarged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = written(12, tmp_path, monkeypatch)
    pictures = re.findall(r"<label class=\"zoom\"><input type=\"checkbox\"><img alt=\"what (.+?) kept\"", page)
    # the smallest budget's runs, and the first method at the other budget
    assert set(pictures) == {"none", "duet 0.5", "duet 0.25", "random 0.25"}
    assert page.count("data:image/jpeg;base64,") == len(pictures) == 4 * 6
    assert "input:checked + img" in page
    assert "Where methods disagree at budget 0.25, and what duet kept at its other budgets" in page


def test_examples_are_of_the_smallest_budget() -> None:
    records, answers, found = results(12)
    smallest = runs_of_the_smallest_budget(RUNS, found)
    assert [run.label for run in smallest] == ["none", "duet 0.25", "random 0.25"]
    assert [run.label for run in drawn_runs(RUNS, smallest, "duet")] == ["none", "duet 0.5", "duet 0.25", "random 0.25"]
    assert {record.id for record in disagreements(records, smallest, answers, 99)} == {
        f"<i>{n}" for n in range(1, 12, 2)
    }


@pytest.mark.parametrize("images", [4, 30])
def test_confidence_in_words(images: int) -> None:
    found = results(images)[2]
    heads, *rows = word_rows(found)
    assert heads == ["method", "budget", "beside the full model", "beside duet at the same budget"]
    duet, random = rows[0], rows[1]
    assert duet[:2] == ["duet", "0.5"] and duet[3] == "" and random[:2] == ["random", "0.5"]
    if images < 10:
        assert confidence(found).startswith("Of 4 images: ")
        assert duet[2] == "keeps 100.0% of the accuracy" and random[2:] == [
            "keeps 50.0% of the accuracy",
            "-50.0 points",
        ]
        return
    assert "one interval in twenty" in confidence(found)
    assert duet[2] == "keeps 100.0% of the accuracy (100.0 to 100.0): no difference shown"
    assert re.fullmatch(r"keeps 50.0% of the accuracy \([\d.]+ to [\d.]+\): a loss", random[2])
    assert re.fullmatch(r"50.0 points worse \([\d.]+ to [\d.]+\)", random[3])
    # the full model beside itself has no interval
    assert cells(found["runs"][0])[6] == "-" and cells(found["runs"][1])[6] == "100.0 to 100.0"


@pytest.mark.parametrize(
    ("ci95", "kept", "apart"),
    [
        ([90.0, 99.9], "a loss", None),
        ([90.0, 100.0], "no difference shown", None),
        ([100.1, 104.0], "a gain", None),
        ([-3.0, -1.0], None, "2.0 points worse (1.0 to 3.0)"),
        ([1.0, 3.0], None, "2.0 points better (1.0 to 3.0)"),
        ([-0.5, 4.0], None, "no difference shown (-0.5 to +4.0 points)"),
        ([0.0, 4.0], None, "no difference shown (+0.0 to +4.0 points)"),
    ],
)
def test_an_interval_says_more_only_where_it_lies_on_one_side(ci95: Any, kept: str | None, apart: str | None) -> None:
    if kept is not None:
        assert kept_in_words({"retained": 97.0, "ci95": ci95}).endswith(f": {kept}")
    else:
        assert apart_in_words({"points": 2.0 if ci95[1] > 0 else -2.0, "ci95": ci95}) == apart


def test_whose_answer_counted() -> None:
    said = right_answers("vqa", PEOPLE)
    assert said == "purple (8 of 10 people), violet (1 of 10 people), dunno (1 of 10 people)"
    assert judged("vqa", "the purple", PEOPLE) == "said by 8 of 10 people: score 1.00"
    assert (
        judged("vqa", "violet", PEOPLE) == "said by 1 of 10 people: score 0.30"
    )  # 9 of 10 choices of nine hold it: 1/3
    assert judged("vqa", "green", PEOPLE) == "said by none of 10 people: score 0.00"
    assert judged("yes_no", "Yes", ("yes",)) == "" and judged("yes_no", "A green one", ("yes",)) == "read as yes"
    assert judged("multiple_choice", "The answer is B.", ("A",)) == "read as B"
    assert (
        judged("multiple_choice", "B", ("A",)) == "" and judged("multiple_choice", "bird", ("A",)) == "no letter in it"
    )
    assert judged("exact_match", "Red.", ("red",)) == "" and right_answers("exact_match", ("red", "red")) == "red"
    assert {right_answers(metric, ("a", "b")) for metric in METRICS if metric != "vqa"} == {"a or b"}


def test_the_template_is_in_the_package_and_misses_nothing_silently() -> None:
    assert (files("duet_vlm.evaluation") / "report.html.j2").is_file()
    made = environment()
    assert made.from_string("{{ a }}").render(a="<") == "&lt;"
    with pytest.raises(Exception, match="'b' is undefined"):
        made.from_string("{{ b }}").render()


class Square(Family):
    """Pictures of two rows and columns of tokens."""

    def token_grid(self, *_: Any) -> tuple[int, int]:
        return 2, 2


@pytest.mark.parametrize("light", [0.0, 0.5, 1.0])
def test_what_is_gone_is_told_from_the_image_on_light_and_dark_pictures(
    light: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch in all layers is as it was, one in none is striped grey, one merged is orange, one in half is between."""
    monkeypatch.setattr(overlay, "family_of", lambda _: Square())
    image = Image.new("RGB", (60, 60), (round(255 * light),) * 3)
    sample = SampleTrace(visual=[0, 1, 2, 3], queries=[], drops=[], tokens_per_layer=[])
    sample.drops, sample.tokens_per_layer = [DropTrace(0, [0, 1]), DropTrace(2, [0])], [2, 2, 1, 1]
    trace = Trace([ImageTrace([0.0] * 4, [0], [1], [[3]])], [sample])
    monkeypatch.setattr(overlay, "patches_of", lambda *_: {0: 0, 1: 1})
    found = overlay.kept_picture(image, trace, {"pixel_values": torch.zeros(4, 3)}, None, None)
    drawn = np.asarray(found, np.float32) / 255
    side = drawn.shape[0] // 2
    kept, half, gone, merged = (drawn[y : y + side, x : x + side] for y in (0, side) for x in (0, side))
    assert np.allclose(kept, light, atol=0.01)
    assert np.allclose(gone.mean((0, 1)), GONE, atol=0.02) and gone.std() > 0.02
    assert np.allclose(half.mean((0, 1)), (light + np.asarray(GONE)) / 2, atol=0.02)
    assert np.allclose(merged, MERGED, atol=0.02)


def test_the_plot_joins_nothing_and_shows_every_method_by_a_mark_of_its_own() -> None:
    found = results(12)[2]
    full, run = found["runs"][:2]
    made = [dict(run, method=f"m{n}", tokens_avg=t) for n in range(30) for t in (1.0, 2.0)]
    axes = pareto(found | {"runs": [full, *made]}).axes[0]
    methods = [line for line in axes.lines if line.get_label().startswith("m")]
    assert len(methods) == 30 and all(line.get_linestyle() == "None" for line in methods)
    assert len({(line.get_marker(), line.get_color()) for line in methods}) == 30
