"""The output folder: what was asked, every answer as soon as it is there, and what is left to do after a stop."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DuetError
from ..files import writing
from .runs import Run

Key = tuple[str, float | None, str]  # method, budget, record
PARTS, ANSWERS, SETTINGS = "parts", "answers.jsonl", "settings.json"


def key_of(line: dict[str, Any]) -> Key:
    return line["method"], line["budget"], line["id"]


class Folder:
    """Answers on disk. Every process appends to a file of its own; all of them together are what was answered.

    Args:
        path: made if it is not there.
        settings: JSON-able, everything that the answers depend on.
        rank: number of this process.

    Raises:
        ValueError: the folder belongs to another run or holds something else.
    """

    def __init__(self, path: Path, settings: dict[str, Any], rank: int = 0):
        self.path, self.rank = path, rank
        if path.exists() and not path.is_dir():
            raise DuetError(f"output folder {str(path)!r} is a file: give another folder.")
        with writing(path, "the answers"):
            path.mkdir(parents=True, exist_ok=True)
        self._claim(json.loads(json.dumps(settings)))
        (path / PARTS).mkdir(exist_ok=True)
        self.file = path / PARTS / f"answers-{rank}.jsonl"
        _drop_half_a_line(self.file)

    def _claim(self, settings: dict[str, Any]) -> None:
        file = self.path / SETTINGS
        if not file.exists():
            others = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(SETTINGS)]
            if others:
                raise DuetError(
                    f"output folder {str(self.path)!r} holds other files ({', '.join(sorted(others)[:3])}): "
                    "give a new or empty one."
                )
            write_whole(file, json.dumps(settings, indent=1) + "\n", self.rank)
        # of processes that start together the last one's settings stand, and are the same
        found = _parsed(file, file.read_bytes())
        for name in sorted({*settings, *found}):
            if found.get(name) != settings.get(name):
                raise DuetError(
                    f"output folder {str(self.path)!r} belongs to another run: its {name} differs "
                    f"({_short(found.get(name))}, now {_short(settings.get(name))}); give another folder."
                )

    def lines(self) -> Iterator[dict[str, Any]]:
        """All that was answered or found wrong so far, by every process; a line being written is left out."""
        for file in [self.path / ANSWERS, *sorted((self.path / PARTS).glob("answers-*.jsonl"))]:
            if file.exists():
                with file.open("rb") as lines:
                    yield from (_parsed(file, line) for line in lines if line.endswith(b"\n"))

    def answered(self) -> dict[Key, dict[str, Any]]:
        """(method, budget, record) -> its answer, each once."""
        return {key_of(line): line for line in self.lines() if "answer" in line}

    def problems(self) -> dict[str, str]:
        """Record -> why it cannot be asked, as found while asking."""
        return {line["id"]: line["problem"] for line in self.lines() if "problem" in line}

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Write lines, and have them on the disk before returning."""
        with writing(self.path, "the answers"), self.file.open("ab") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def finish(self, runs: list[Run], ids: list[str], answers: dict[Key, dict[str, Any]]) -> None:
        """Put the processes' files together into `answers.jsonl`: by record, then by run, each once."""
        wanted = [answers[*run.key, name] for name in ids for run in runs if (*run.key, name) in answers]
        problems = [{"id": name, "problem": problem} for name, problem in self.problems().items()]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in wanted + problems)
        write_whole(self.path / ANSWERS, text)
        for file in (self.path / PARTS).glob("answers-*.jsonl"):
            file.unlink()
        (self.path / PARTS).rmdir()


def write_whole(file: Path, text: str, rank: int = 0) -> None:
    """Write a file so that a stop leaves the old one or the new one, never half of it."""
    new = file.with_name(f"{file.name}.{rank}.new")
    with writing(file, "the results"):
        new.write_text(text, encoding="utf-8")
        new.replace(file)


def _parsed(file: Path, text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DuetError(f"{str(file)!r} is not as duet eval wrote it ({error}): give another folder.") from error
    if not isinstance(found, dict):
        raise DuetError(f"{str(file)!r} is not as duet eval wrote it: give another folder.")
    return found


def _drop_half_a_line(file: Path) -> None:
    """Cut what a killed process was writing."""
    if file.exists():
        whole = file.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(file, end)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
