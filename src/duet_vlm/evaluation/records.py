"""What is asked: the records of a JSONL manifest, and what is wrong with the lines that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DuetError
from ..families.placeholders import without_place
from ..inputs.images import read_image
from ..inputs.paths import check_file
from ..inputs.text_files import NotJson, check_whole, lines, may_be_torn, parse, read_text
from .metrics import check_expected

FIELDS = ("id", "image", "video", "question", "answer", "answers", "category", "metric")


@dataclass(frozen=True)
class Record:
    """One question about one image or video.

    Attributes:
        id: unique in its data set.
        question: the whole text of the turn, instructions such as "Answer with one word." included.
        expected: the right answers; for the metric "vqa", what each person answered.
        picture: a PIL image, or the path of a picture file.
        video: the path of a video file, instead of a picture.
        source: what it asks about; records of one source are resampled together.
        category: the group it is reported in.
        metric: one of `metrics.METRICS`.
        line: of the manifest.
    """

    id: str
    question: str
    expected: tuple[str, ...]
    picture: Any = None
    video: Path | None = None
    source: str = ""
    category: str = ""
    metric: str = "exact_match"
    line: int | None = None

    def image(self) -> Any:
        """The picture, RGB and upright.

        Raises:
            DuetError: a missing or damaged file.
        """
        return read_image(self.picture)

    def described(self) -> dict[str, Any]:
        """JSON-able, for `records.jsonl` and for the check that a folder belongs to this run."""
        return {
            "id": self.id, "question": self.question, "answers": list(self.expected), "category": self.category,
            "metric": self.metric, "source": self.source,
        }  # fmt: skip


@dataclass(frozen=True)
class Skipped:
    """Something that could not be evaluated, and why; `line` of the manifest and `id` where they are known."""

    reason: str
    line: int | None = None
    id: str | None = None

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}" if self.line is not None else self.reason


def source_of(record: Record) -> str:
    """What is resampled together; a record of no source is one of its own."""
    return record.source or f"record {record.id}"


def read_manifest(file: Path, scored: bool = True) -> tuple[list[Record], list[Skipped]]:
    """The records of a JSONL manifest, one object per line; empty lines are skipped.

    Fields: `question`, where LLaVA's "<image>" on a line of its own is read as the image's place and left out, since
    the image comes first; `answer`, a text, or `answers`, a list; `image` or `video`, a path, relative ones from the
    manifest's folder; and if wanted `id` (else the number of the line), `category`, `metric` (else "exact_match").

    Args:
        file: the manifest.
        scored: whether answers are needed, by which others are scored.

    Raises:
        DuetError: the file cannot be read; what is wrong with one line is a `Skipped`.
    """
    text = read_text(file, "manifest", "a JSONL file, 'demo' or 'pages'" if scored else "a JSONL file")
    records: list[Record] = []
    problems: list[Skipped] = []
    used: dict[str, int] = {}
    for number, line in lines(text):
        name = None
        try:
            data = _parsed(line)
            name = _name(data, number)
            record = _record(data, name, number, file.parent, scored)
            if record.id in used:
                raise DuetError(f"id {record.id!r} was used in line {used[record.id]} already: give each its own.")
        except DuetError as error:
            problems.append(Skipped(str(error), number, name))
            continue
        used[record.id] = number
        records.append(record)
    return records, problems


def _parsed(line: str) -> Mapping[str, Any]:
    try:
        data = parse(line)
        if may_be_torn(line):
            check_whole(data)
    except NotJson as error:
        raise DuetError(f"this is not JSON ({error}): write one object per line.") from error
    if not isinstance(data, dict):
        raise DuetError(f"this is JSON, but no object: write one with {', '.join(FIELDS)}.")
    return data


def _name(data: Mapping[str, Any], line: int) -> str:
    name = data.get("id", line)
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise DuetError(f"id {name!r} must be a text or a whole number.")
    return str(name)


def _record(data: Mapping[str, Any], name: str, line: int, folder: Path, scored: bool) -> Record:
    for key in data:
        if key not in FIELDS:
            raise DuetError(f"field {key!r} is unknown: a record has {', '.join(FIELDS)}.")
    if "answer" in data and "answers" in data:
        raise DuetError("answer and answers are both given: give one of them.")
    answers = data["answers"] if "answers" in data else [data[key] for key in ("answer",) if key in data]
    if not isinstance(answers, list) or not all(isinstance(a, (str, int, float)) for a in answers):
        raise DuetError("answers must be a list of texts.")
    expected = tuple(str(a) for a in answers)
    metric = _text(data, "metric", "exact_match")
    if scored:
        check_expected(metric, expected)
    if ("image" in data) == ("video" in data):
        raise DuetError("give one of image and video: the path of a file.")
    kind = "image" if "image" in data else "video"
    question = without_place(_text(data, "question"), kind)
    if not question.strip():
        raise DuetError("question must be a text that is not empty.")
    path = folder / _text(data, kind)
    check_file(path, kind, "a path, relative ones from the manifest's folder")
    return Record(
        name, question, expected, path if kind == "image" else None, path if kind == "video" else None,
        source=str(data[kind]), category=_text(data, "category", ""), metric=metric, line=line,
    )  # fmt: skip


def _text(data: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = data.get(key, default)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise DuetError(f"{key} must be a text{'' if default is not None else ' that is not empty'}.")
    return value
