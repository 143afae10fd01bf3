"""One record that cannot be asked is named with its line and left out, alone or among fifteen others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import saved_video
from clips import clip
from PIL import Image
from saved import config, photo, processor, save
from typer.testing import CliRunner

from duet_vlm.cli.main import app
from duet_vlm.errors import DuetError
from duet_vlm.evaluation.answering import Asker
from duet_vlm.evaluation.records import read_manifest
from duet_vlm.families.placeholders import check_text, without_place
from duet_vlm.inputs.checkpoints import read_config
from duet_vlm.lmms_eval.conversation import Reader

QUESTION = "what color is the star ?"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    save(folder / "llava")
    saved_video.save(folder / "qwen2_5_vl", "qwen2_5_vl")
    whole = photo(folder / "a.png").read_bytes()
    (folder / "half.png").write_bytes(whole[:300])
    (folder / "text.png").write_text("no picture", encoding="utf-8")
    Image.new("RGB", (4000, 2)).save(folder / "line.png")
    clip(folder / "c.mp4")
    (folder / "half.mp4").write_bytes((folder / "c.mp4").read_bytes()[:500])
    return folder


# a line of the manifest, and what is told of it for LLaVA and for Qwen, or None where it is asked
LINES: list[tuple[Any, str | None, str | None]] = [
    ({}, None, None),
    ({"question": f"<image>\n{QUESTION}"}, None, None),
    ({"question": f"{QUESTION}\n<image>"}, None, None),
    ({"question": "what <image> color ?"}, "holds '<image>', which this model takes for the place of a picture", None),
    ({"question": "<image>\n<image>\nwhat ?"}, "holds '<image>'", None),
    ({"question": "is <|image_pad|> here ?"}, None, "holds '<|image_pad|>', which this model takes"),
    ({"question": "is <|video_pad|> here ?"}, None, "holds '<|video_pad|>', which this model takes"),
    ({"question": "<image>"}, "question must be a text that is not empty", "question must be a text that is not empty"),
    ({"question": "red " * 2100}, "exceeds the model's context of 2048: shorten", "exceeds the model's context of 512"),
    ({"image": "half.png"}, "is truncated or damaged", "is truncated or damaged"),
    ({"image": "text.png"}, "is no picture", "is no picture"),
    ({"image": "none.png"}, "does not exist", "does not exist"),
    ({"image": "x" * 999}, "does not exist", "does not exist"),
    ({"image": "line.png"}, None, "the model's processor refuses it (absolute aspect ratio must be smaller than 200"),
    ({"image": None, "video": "half.mp4"}, "take pictures only", "cannot be decoded"),
    ('{"image": "a.png", "question": "\\ud83d ?", "answer": "red"}', "half a character", "half a character"),
    ({}, None, None),
]


def written(folder: Path, file: Path, chosen: list[int]) -> Path:
    rows = []
    for number in chosen:
        row = LINES[number - 1][0]
        if not isinstance(row, str):
            whole = {"id": f"q{number}", "image": "a.png", "question": QUESTION, "answer": "red"} | row
            row = json.dumps({key: value for key, value in whole.items() if value is not None})
        rows.append(row.replace('"a.png"', json.dumps(str(folder / "a.png"))))
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


def evaluated(here: Path, model: str, data: Path, out: Path, *more: str) -> Any:
    return CliRunner().invoke(app, [
        "eval", "--model", str(here / model), "--data", str(data), "--methods", "duet", "--keep", "0.5",
        "--max-new-tokens", "2", "--out", str(out), *more,
    ])  # fmt: skip


def answers(out: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    return {f"{x['method']} {x['id']}": (x["answer"], x["tokens_avg"], x["kv_bytes"]) for x in lines if "answer" in x}


@pytest.mark.parametrize("size", [pytest.param("1", marks=pytest.mark.long), "16"])
@pytest.mark.parametrize("model", ["llava", "qwen2_5_vl"])
def test_bad_records_are_named_and_the_rest_is_answered(here: Path, tmp_path: Path, model: str, size: str) -> None:
    told = {number: line[1 if model == "llava" else 2] for number, line in enumerate(LINES, start=1)}
    good = [number for number, reason in told.items() if reason is None]
    data = written(here, here / f"{model}{size}.jsonl", list(told))
    result = evaluated(here, model, data, tmp_path / "out", "--batch-size", size)
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    skipped = {one["line"]: one["reason"] for one in results["skipped"]}
    assert sorted(skipped) == [number for number, reason in told.items() if reason is not None]
    for number, reason in skipped.items():
        assert str(told[number]) in reason, (number, reason)
    assert [run["n"] for run in results["runs"]] == [len(good)] * 2
    # as if the others had never been there
    only = written(here, here / f"{model}{size}-good.jsonl", good)
    assert evaluated(here, model, only, tmp_path / "good", "--batch-size", size).exit_code == 0
    assert answers(tmp_path / "out") == answers(tmp_path / "good")
    found = answers(tmp_path / "out")
    assert found["duet q1"] == found["duet q2"] == found["duet q3"]


def test_strict_stops_at_the_first(here: Path, tmp_path: Path) -> None:
    data = written(here, here / "strict.jsonl", [1, 4, 17])
    result = evaluated(here, "llava", data, tmp_path / "out", "--strict")
    assert result.exit_code == 2 and "line 2: the text 'what <image> color ?' holds '<image>'" in result.stderr


def test_nothing_that_can_be_asked(here: Path, tmp_path: Path) -> None:
    result = evaluated(here, "llava", written(here, here / "none.jsonl", [8, 4]), tmp_path / "out")
    assert result.exit_code == 2
    assert "nothing could be asked, for example line 2: the text 'what <image> color ?'" in result.stderr


def test_the_same_question_is_one_sentence_in_run_and_plug_in(here: Path) -> None:
    for question in ("what <image> color ?", f"<image>\n{QUESTION}"):
        result = CliRunner().invoke(app, [
            "run", str(here / "a.png"), "--ask", question, "--model", str(here / "llava"),
        ])  # fmt: skip
        assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "holds '<image>'" in result.stderr
        content = [{"type": "image", "url": str(here / "a.png")}, {"type": "text", "text": question}]
        with pytest.raises(DuetError, match="holds '<image>', which this model takes for the place of a picture"):
            Reader(read_config(str(here / "llava")), processor()).read([{"role": "user", "content": content}])


def test_the_plug_in_reads_pictures_as_the_rest_does(here: Path) -> None:
    reader = Reader(read_config(str(here / "llava")), processor())
    deep = Image.new("I;16", (4, 4), 0x8080)
    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    turned = Image.new("RGB", (4, 8))
    turned.getexif()[0x0112] = 6
    content = [{"type": "image", "url": picture} for picture in (deep, clear, turned, str(here / "a.png"))]
    found = reader.read([{"role": "user", "content": content}]).images
    assert found[0].getpixel((0, 0)) == (128,) * 3 and found[1].getpixel((0, 0)) == (255,) * 3
    assert found[2].size == (8, 4) and found[3].size == (200, 160)
    with pytest.raises(DuetError, match="a picture of type bytes cannot be read"):
        reader.read([{"role": "user", "content": [{"type": "image", "url": b"x"}]}])


def test_places_as_llava_writes_them() -> None:
    for text in ("<image>\nwhat ?", "<image> what ?", " <image>\n\nwhat ?", "what ?\n<image>", "what ?\n <image>\n"):
        assert without_place(text, "image") == "what ?"
        assert without_place(text, "video") == text
    assert without_place("<video>\nwhat ?", "video") == "what ?"
    for text in ("what <image> ?", "what ? <image>", "what ?"):
        assert without_place(text, "image") == text


def test_every_token_of_a_picture_is_found() -> None:
    made = processor()
    check_text("an image", made, config())
    for token in (made.image_token, made.tokenizer.convert_ids_to_tokens(config().image_token_id)):
        with pytest.raises(DuetError, match=f"holds '{token}'"):
            check_text(f"an {token}", made, config())


def test_a_mistake_of_ours_is_no_bad_record(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, record: Any) -> Any:
        raise KeyError("a bug")

    monkeypatch.setattr(Asker, "load_media", broken)
    result = evaluated(here, "llava", written(here, here / "bug.jsonl", [1]), tmp_path / "out")
    assert isinstance(result.exception, KeyError)


def test_lines_of_the_manifest_are_the_files_own(here: Path) -> None:
    records, _ = read_manifest(written(here, here / "lines.jsonl", list(range(1, len(LINES) + 1))))
    assert [record.line for record in records] == [int(record.id[1:]) for record in records]


def test_run_names_the_picture_that_a_processor_refuses(here: Path) -> None:
    line = here / "line.png"
    result = CliRunner().invoke(app, ["run", str(line), "--ask", QUESTION, "--model", str(here / "qwen2_5_vl")])
    assert result.exit_code == 2 and not result.stdout
    assert f"the model's processor refuses '{line}' (absolute aspect ratio must be smaller than 200" in result.stderr
    assert result.stderr.rstrip().endswith("choose another picture or model.")
