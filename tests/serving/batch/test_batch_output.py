"""The folder of `duet batch`: a line per record, whatever comes twice, stops, or was put right in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from batches import read

from duet_vlm import DuetError
from duet_vlm.evaluation.records import Record, Skipped
from duet_vlm.serving.batch.output import Output

SETTINGS: dict[str, Any] = {"command": "duet batch", "model": "demo", "config": {"dominant": 3, "drops": []}}


def records(*names: str) -> list[Record]:
    return [
        Record(name, f"what is {name} ?", (), picture=Path(f"/pictures/{name}.png"), source=f"{name}.png", line=n)
        for n, name in enumerate(names, start=1)
    ]


def answer(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "answer": f"the {name}",
        "visual_tokens": 9,
        "tokens_in": 4,
        "tokens_avg": 3.5,
        "tokens_last": 0,
    }


def test_each_record_gets_one_line_in_the_manifests_order(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with Output(
        out, SETTINGS, records("a", "b", "c"), [Skipped("it is no JSON.", 4), Skipped("it is twice.", 5, "a")]
    ) as o:
        assert o.add([answer("c"), {"id": "b", "error": "it is damaged."}]) == 2
        assert o.add([answer("c"), answer("b"), answer("a")]) == 1
        lines = o.finish()
    assert lines == read(out / "answers.jsonl")
    assert lines == [
        {"image": "a.png", "question": "what is a ?"} | answer("a"),
        {"id": "b", "image": "b.png", "question": "what is b ?", "line": 2, "error": "it is damaged."},
        {"image": "c.png", "question": "what is c ?"} | answer("c"),
        {"id": None, "line": 4, "error": "it is no JSON."},
        {"id": None, "line": 5, "error": "it is twice."},
    ]


def test_a_folder_goes_on_with_what_has_no_answer(tmp_path: Path) -> None:
    with Output(tmp_path, SETTINGS, records("a", "b", "c"), [Skipped("it does not exist.", 4, "d")]) as o:
        o.add([answer("b"), {"id": "c", "error": "it is damaged."}])
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"id": "a", "answ')  # a process was killed while it wrote
    with Output(tmp_path, SETTINGS, records("a", "b", "c", "d", "e")) as o:
        assert [record.id for record in o.left] == ["a", "c", "d", "e"]
        assert [line["id"] for line in read(tmp_path / "answers.jsonl")] == ["b"]
        assert o.add(map(answer, "edcba")) == 4
        assert [line["id"] for line in o.finish()] == list("abcde")
    # a record with an answer whose picture is gone by now, and one that is not asked about any more
    with Output(tmp_path, SETTINGS, records("b"), [Skipped("it does not exist.", 1, "a")]) as o:
        assert o.left == []
        assert sorted(line["id"] for line in o.finish()) == list("abcde")


def test_answers_of_other_settings_records_and_weights_are_refused(tmp_path: Path) -> None:
    with Output(tmp_path, SETTINGS, records("a")) as o:
        o.check_weights("one")
        o.check_weights("one")
        o.add([answer("a")])
        with pytest.raises(DuetError, match="its weights are others, though its model has the same name"):
            o.check_weights("two")
    before = (tmp_path / "settings.json").read_bytes(), (tmp_path / "answers.jsonl").read_bytes()
    other = records("a")[0].__class__("a", "who ?", (), picture=Path("/pictures/a.png"), source="a.png", line=1)
    for settings, asked, told in (
        (SETTINGS | {"config": {"dominant": 4, "drops": []}}, records("a"), "its config.dominant was 3 and is 4 now"),
        (SETTINGS | {"model": "/m"}, records("a"), 'its model was "demo" and is "/m" now'),
        (SETTINGS | {"extra": 1}, records("a"), "its extra was null and is 1 now"),
        (SETTINGS, [other], r"""its record 'a' had question "what is a \?" and has "who \?" now"""),
    ):
        with pytest.raises(DuetError, match=f"^output folder .* belongs to another run: {told}; give another folder.$"):
            Output(tmp_path, settings, asked)
    with Output(tmp_path, SETTINGS, records("a")) as o, pytest.raises(DuetError, match="its weights are others"):
        o.check_weights("two")
    assert before == ((tmp_path / "settings.json").read_bytes(), (tmp_path / "answers.jsonl").read_bytes())


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with Output(tmp_path, SETTINGS, records("a")), pytest.raises(DuetError, match="another duet batch is writing to"):
        Output(tmp_path, SETTINGS, records("a"))
    Output(tmp_path, SETTINGS, records("a")).close()


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    with pytest.raises(DuetError, match=r"holds other files \(photo.png\): give a new or empty one"):
        Output(tmp_path, SETTINGS, records("a"))
    with pytest.raises(DuetError, match="is a file: give another folder"):
        Output(tmp_path / "photo.png", SETTINGS, records("a"))
    mixed = tmp_path / "mixed"
    Output(mixed, SETTINGS, records("a")).close()
    for text in ("nonsense\n", "[1]\n", "{}\n"):
        (mixed / "answers.jsonl").write_text(text)
        with pytest.raises(DuetError, match=r"is not as duet batch wrote it.*: give another folder"):
            Output(mixed, SETTINGS, records("a"))
