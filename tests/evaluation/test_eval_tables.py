"""What the tables, the page and the plots of `duet eval` say: counts, metrics, intervals, yes/no figures, places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from duet_vlm import DuetConfig
from duet_vlm.evaluation.page import write_page
from duet_vlm.evaluation.plots import categories, milliseconds, pareto, write_plots
from duet_vlm.evaluation.records import Record
from duet_vlm.evaluation.report import figures
from duet_vlm.evaluation.runs import Run, full_model
from duet_vlm.evaluation.table import category_rows, intervals, more_tables, result_table, title, yes_no_rows

RUNS = [full_model(), *(Run(m, DuetConfig(), b) for m in ("duet", "random", "pool") for b in (0.5, 0.25))]


def results(images: int, per_image: int = 2, yes_no: int = 1, named: bool = True, threads: int = 1) -> dict[str, Any]:
    """Of made-up answers; every `yes_no`-th question is one of yes or no, under category "existence" if `named`."""
    rng = np.random.default_rng(0)
    records, answers = [], {}
    for number in range(images * per_image):
        is_yes = bool(yes_no) and number % 2 == 0
        expected = ("yes", "no")[number // 2 % 2] if is_yes else "red"
        category = ("existence" if is_yes else "color") if named else ""
        metric = "yes_no" if is_yes else "exact_match"
        records.append(Record(f"{number}", "q", (expected,), None, None, f"i{number % images}", category, metric))
    for place, run in enumerate(RUNS):
        for number, record in enumerate(records):
            said = record.expected[0] if rng.random() < 0.8 else ("no" if record.metric == "yes_no" else "blue")
            answers[*run.key, record.id] = {
                "answer": said, "score": float(said == record.expected[0]), "kv_bytes": 1024,
                "seconds": 0.01 + place / 999, "tokens_in": 10,
                "tokens_avg": 10 + place + number / 100, "tokens_last": 5, "ttft_ms": 3.0,
            }  # fmt: skip
    found = figures(records, RUNS, answers, 0)
    return found | {
        "questions": len(records), "sources": images, "seed": 0, "skipped": [], "command": "duet eval",
        "settings": {"model": "m", "data": "d", "batch_size": 4, "dtype": "float32"},
        "hardware": {"cpu": "a CPU", "threads": threads},
        "versions": {"duet_vlm": "0", "torch": "0", "transformers": "0"},
    }  # fmt: skip


def text_of(found: dict[str, Any]) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in (result_table(found), *more_tables(found)):
        console.print(table)
    return console.export_text()


def page_of(found: dict[str, Any], folder: Path) -> str:
    write_plots(found, folder)
    write_page(None, [], RUNS[:1], {}, found, folder)  # type: ignore[arg-type]
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("images", [1, 3, 9])
def test_below_ten_images_tables_leave_intervals_out_and_say_why(images: int, tmp_path: Path) -> None:
    found = results(images)
    assert all(run["ci95"] is None and run["retained"] is not None for run in found["runs"])
    assert all(part["ci95"] is None for run in found["runs"] for part in run["categories"].values())
    assert found["runs"][3]["difference"]["ci95"] is None and found["runs"][3]["difference"]["points"] is not None
    why = f"no intervals: {images} image{'' if images == 1 else 's'} of at least 10 that they need"
    assert intervals(found) == why
    assert why in text_of(found) and why.capitalize() in page_of(found, tmp_path)
    assert "to 1" not in text_of(found)


def test_with_images_enough_there_are_intervals_but_not_in_a_small_category() -> None:
    found = results(20)
    for run in found["runs"][1:]:
        low, high = run["ci95"]
        assert low < run["retained"] < high
    assert intervals(found) == "95% intervals: paired bootstrap over 20 images"
    small = results(10, per_image=1)
    assert small["runs"][1]["ci95"] is not None
    assert all(part["ci95"] is None for part in small["runs"][1]["categories"].values())
    assert intervals(small) == "95% intervals: paired bootstrap over 10 images, none below 10"


def test_counts_and_metrics_stand_beside_the_figures(tmp_path: Path) -> None:
    found = results(3)
    assert title(found) == "m on d: 6 questions, scored by yes_no (3), exact_match (3)"
    assert category_rows(found)[0] == ["method", "budget", "existence\nn = 3\nyes_no", "color\nn = 3\nexact_match"]
    shown, page = text_of(found), page_of(found, tmp_path)
    for text in ("n = 3", "exact_match", "precision %", "3 yes/no questions"):
        assert text in shown and text in page
    assert "1 thread a process" in page and "2 threads a process" in page_of(results(3, threads=2), tmp_path)
    one = results(1, per_image=1, yes_no=0)
    assert title(one) == "m on d: 1 question, scored by exact_match"
    assert category_rows(one)[0][2:] == ["color\nn = 1"]  # of one metric, said in the title


def test_yes_no_figures_are_those_of_the_answers() -> None:
    found = results(12)
    heads, *rows = yes_no_rows(found)
    assert heads == ["method", "budget", "accuracy %", "precision %", "recall %", "F1 %", "yes %"]
    for run, row in zip(found["runs"], rows, strict=True):
        figures = run["yes_no"]
        assert row[3:] == [f"{100 * figures[n]:.1f}" for n in ("precision", "recall", "f1", "yes_ratio")]
        assert figures["f1"] == pytest.approx(
            2 * figures["precision"] * figures["recall"] / (figures["precision"] + figures["recall"])
        )
    assert yes_no_rows(results(12, yes_no=0)) == []


def test_without_categories_there_is_no_table_of_them(tmp_path: Path) -> None:
    found = results(12, named=False)
    (tmp_path / "categories.png").write_bytes(b"of an earlier start")
    assert all(run["categories"] == {} for run in found["runs"]) and category_rows(found) == []
    assert "per category" not in text_of(found) and "Per category" not in page_of(found, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pareto.png", "report.html"]


def test_the_full_model_has_no_difference_to_what_has_no_budget() -> None:
    runs = [full_model(), Run("saved", DuetConfig())]
    record = Record("1", "q", ("red",))
    one = {"answer": "red", "score": 1.0, "kv_bytes": 1, "seconds": 1, "tokens_in": 1, "tokens_avg": 1,
           "tokens_last": 1, "ttft_ms": None}  # fmt: skip
    rows = figures([record], runs, {(*run.key, "1"): one for run in runs}, 0)["runs"]
    assert [row["difference"] for row in rows] == [None, None]


def test_points_of_the_plot_stand_where_they_were_measured() -> None:
    found = results(12)
    left, right = pareto(found).axes[:2]
    for axes, at in ((left, lambda run: run["tokens_avg"]), (right, milliseconds)):
        drawn = {line.get_label(): line.get_xydata() for line in axes.lines if not line.get_label().startswith("_")}
        assert set(drawn) == {"duet", "random", "pool"}
        for name, points in drawn.items():
            rows = [run for run in found["runs"] if run["method"] == name]
            expected = sorted((at(run), run["retained"]) for run in rows)
            assert sorted(map(tuple, points)) == [pytest.approx(point) for point in expected]
        # an interval of every run, none on top of another
        places = [path.vertices[0, 0] for part in axes.collections for path in part.get_paths()]
        assert len(set(places)) == len(places) == 6
        assert "the full model, " in axes.get_title(loc="left")
    assert not [part for axes in pareto(results(3)).axes[:2] for part in axes.collections]  # no intervals


def test_categories_of_few_questions_are_outlined_and_all_carry_their_number(tmp_path: Path) -> None:
    figure = categories(results(12))
    labels = [tick.get_text() for tick in figure.axes[-1].get_xticklabels()]
    assert labels == ["all (24)", "existence (12)", "color (12)"]
    assert all(cell.get_facecolor()[3] == 1 for cell in figure.axes[0].patches)
    few = categories(results(4))
    filled = [cell.get_facecolor()[3] for cell in few.axes[0].patches]
    assert filled.count(0) == len(filled) and "fewer than 10 questions" in few.get_supxlabel()
    write_plots(results(4), tmp_path)
    with Image.open(tmp_path / "categories.png") as picture:
        assert picture.width > 800


def test_results_are_plain_json() -> None:
    json.dumps(results(3))
