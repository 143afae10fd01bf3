"""Text, JSON, JSON lines and YAML in every encoding, with every line end, and every mistake at its line."""

from __future__ import annotations

import ast
import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from train_data import llava

import duet_vlm
from duet_vlm.errors import DuetError
from duet_vlm.evaluation.records import read_manifest
from duet_vlm.inputs.text_files import NotJson, parse, read_json, read_yaml
from duet_vlm.training.records import Unreadable, conversation, read_records

MARKS = {
    "utf-8": b"", "utf-8-sig": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE,
}  # fmt: skip
TEXT = "what is für 星 🌟 ?"


def encoded(text: str, encoding: str, mark: bool = True) -> bytes:
    return (MARKS[encoding] if mark else b"") + text.encode(encoding.removesuffix("-sig"))


def question(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "a.png").write_bytes(b"looked at later")
    return {"image": "a.png", "question": TEXT, "answer": "red"} | more


@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", MARKS)
def test_every_encoding_and_line_end(tmp_path: Path, encoding: str, end: str, mark: bool) -> None:
    asked = question(tmp_path)
    rows = [json.dumps(asked, ensure_ascii=False), "", " \t", json.dumps(asked, ensure_ascii=False)]
    file = tmp_path / "q.jsonl"
    for last in ("", end):
        file.write_bytes(encoded(end.join(rows) + last, encoding, mark))
        records, problems = read_manifest(file)
        assert not problems and [(r.line, r.question) for r in records] == [(1, TEXT), (4, TEXT)]
    taught = llava(1, None) | {"id": TEXT}
    file.write_bytes(encoded(end.join(json.dumps(taught, ensure_ascii=False) for _ in range(3)), encoding, mark))
    assert [(r.index, r.data) for r in read_records((str(file),))] == [(i, taught) for i in range(3)]
    file.write_bytes(encoded(json.dumps([taught] * 2, indent=1, ensure_ascii=False), encoding, mark))
    assert [(r.index, r.data) for r in read_records((str(file),))] == [(i, taught) for i in range(2)]
    file.write_bytes(encoded(f"a: 1{end}b: für 星", encoding, mark))
    assert read_yaml(file, "config", "another") == {"a": 1, "b": "für 星"}


def test_marks_in_the_middle_of_joined_files(tmp_path: Path) -> None:
    one = encoded(json.dumps(question(tmp_path)) + "\n", "utf-8-sig")
    (tmp_path / "q.jsonl").write_bytes(one * 3)
    records, problems = read_manifest(tmp_path / "q.jsonl")
    assert not problems and [r.line for r in records] == [1, 2, 3]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_separators_that_end_no_line(tmp_path: Path, separator: str) -> None:
    said = f"one{separator}two"
    # JSON wants control characters escaped, and only those
    written = json.dumps(said, ensure_ascii=separator < " ")
    row = json.dumps(question(tmp_path)).replace(json.dumps(TEXT), written)
    (tmp_path / "q.jsonl").write_text(f"{row}\n{row}\n", encoding="utf-8")
    records, problems = read_manifest(tmp_path / "q.jsonl")
    assert not problems and [(r.line, r.question) for r in records] == [(1, said), (2, said)]
    row = json.dumps(llava(1, None)).replace('"id": 0', f'"id": {written}')
    (tmp_path / "t.jsonl").write_text(f"{row}\n{row}\n{{\n", encoding="utf-8")
    first, second, third = read_records((str(tmp_path / "t.jsonl"),))
    assert first.data == second.data and first.data["id"] == said
    assert third.index == 2 and isinstance(third.data, Unreadable)


BAD: dict[str, tuple[bytes, str]] = {
    "a key twice": (b'{"question": "a", "question": "b"}', "key 'question' is given twice"),
    "a key twice inside": (b'{"x": [{"y": 1, "y": 1}]}', "key 'y' is given twice"),
    "NaN": (b'{"answer": NaN}', "NaN is no number of JSON"),
    "infinity": (b'{"answer": -Infinity}', "-Infinity is no number of JSON"),
    "too large": (b'{"answer": 1e999}', "number 1e999 is out of range"),
    "too many digits": (b'{"answer": ' + b"9" * 5000 + b"}", "a number has too many digits"),
    "too deep": (b"[" * 100_000, "it is nested too deeply"),
    "half an emoji": (b'{"question": "\\ud83d"}', r"it holds half a character, '\ud83d'"),
    "half an emoji in a key": (b'{"x": {"\\ude00": 1}}', r"it holds half a character, '\ude00'"),
    "another encoding": ('{"question": "für"}'.encode("latin-1"), "it holds a byte that is not UTF-8"),
    "no JSON": (b"{'question': 1}", "Expecting property name enclosed in double quotes, column 2"),
    "control character": (b'{"question": "a\x00"}', "Invalid control character at, column 16"),
    "nothing after it": (b'{"a": 1} x', "Extra data, column 10"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_line_is_named_and_the_rest_is_read(tmp_path: Path, case: str) -> None:
    bad, reason = BAD[case]
    good = json.dumps(question(tmp_path)).encode()
    (tmp_path / "q.jsonl").write_bytes(b"\r\n".join([good, b"", bad, good]))
    records, problems = read_manifest(tmp_path / "q.jsonl")
    assert [r.line for r in records] == [1, 4] and [p.line for p in problems] == [3]
    assert str(problems[0]).startswith("line 3: this is not JSON (") and reason in str(problems[0])
    taught = json.dumps(llava(1, None)).encode()
    (tmp_path / "t.jsonl").write_bytes(b"\n".join([taught, b"", bad, taught]))
    found = read_records((str(tmp_path / "t.jsonl"),))
    assert [r.index for r in found] == [0, 2, 3]
    assert isinstance(found[1].data, Unreadable) and reason in found[1].data
    with pytest.raises(DuetError):
        conversation(found[1].data, None)


def test_whole_emoji_written_as_escapes_are_good(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(question(tmp_path), ensure_ascii=True), encoding="utf-8")
    records, problems = read_manifest(tmp_path / "q.jsonl")
    assert not problems and records[0].question == TEXT


def test_one_bad_text_in_a_list_is_one_record(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    good = json.dumps(llava(1, None)).encode()
    file.write_bytes(b"[" + good + b", " + good.replace(b"what", b"wh\xe4t", 1) + b",\n" + good + b"]")
    found = read_records((str(file),))
    assert [isinstance(r.data, Unreadable) for r in found] == [False, True, False]
    file.write_bytes(b"[" + good + b",\n" + good[:-1] + b"]")
    with pytest.raises(DuetError, match=r"is no JSON at line 2: Expecting ',' delimiter, column \d+\.$"):
        read_records((str(file),))


def test_json_lines_that_begin_with_a_list_by_mistake(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("[1]\n" + json.dumps(llava(1, None)), encoding="utf-8")
    found = read_records((str(tmp_path / "t.jsonl"),))
    assert [r.data for r in found] == [[1], llava(1, None)]


def test_what_cannot_be_decoded_at_all(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(codecs.BOM_UTF16_LE + b"{\0}")
    for read in (read_manifest, lambda file: read_records((str(file),)), lambda file: read_json(file, "file", "it")):
        with pytest.raises(DuetError, match=r"cannot be read \(truncated data\): give "):
            read(tmp_path / "q.jsonl")
    nowhere = ((tmp_path / "none", "does not exist"), (tmp_path, "is a folder"), (Path("x" * 999), "does not exist"))
    for path, reason in nowhere:
        with pytest.raises(DuetError, match=reason):
            read_manifest(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb:\n  c: 2\n  c: 3\n", "is no YAML at line 4: 'c' is given twice."),
        ("a: 1\na: 1\n", "is no YAML at line 2: 'a' is given twice."),
        ("a: [", "is no YAML at line 1: "),
        ("a: 2026-02-31", "is no YAML: day is out of range for month"),
        ("[" * 5000, "is no YAML: maximum recursion depth exceeded"),
        ("a: \x00", "is no YAML: "),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DuetError) as refusal:
        read_yaml(tmp_path / "x.yaml", "config", "a YAML file")
    assert reason in str(refusal.value) and "\n" not in str(refusal.value)


def test_merged_keys_of_yaml_are_not_given_twice(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a {x: 1}\nb:\n  <<: *a\n  x: 2\n", encoding="utf-8")
    assert read_yaml(tmp_path / "x.yaml", "config", "another")["b"] == {"x": 2}


def test_parse_agrees_with_json_on_what_is_good() -> None:
    for value in (None, True, 0, -1.5, 1e300, "", "x\u2028y\n", [], {}, [{"a": [1, {"b": "🌟"}]}]):
        assert parse(json.dumps(value)) == parse(json.dumps(value, ensure_ascii=False)) == value
    with pytest.raises(NotJson) as refusal:
        parse('[1,\n2,\n"x]')
    assert refusal.value.line == 3


def test_every_text_file_is_opened_with_its_encoding() -> None:
    """As on Windows the default is no UTF-8."""
    lacking = []
    for file in Path(duet_vlm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            library = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in ("Image", "av")
            if name not in ("open", "write_text", "read_text") or library:
                continue
            given = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            binary = name == "open" and any(isinstance(value, str) and "b" in value for value in given)
            own = name == "read_text" and isinstance(node.func, ast.Name)  # text_files.read_text
            if not binary and not own and "encoding" not in {keyword.arg for keyword in node.keywords}:
                lacking.append(f"{file.name}:{node.lineno}")
    assert not lacking
