"""The output folder of `duet batch`: one line per record, written by one process, so that none is lost or repeated."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import DuetError
from ...evaluation.records import Record, Skipped
from ...evaluation.store import as_lines, drop_half_a_line
from ...inputs.files import write_whole, writing
from ...inputs.plain_data import flattened

ANSWERS, SETTINGS, LOCK = "answers.jsonl", "settings.json", ".lock"
WHAT = "the answers"  # as errors call them


class Output:
    """Answers on disk, and which records are still to be asked.

    A record that has an answer is never asked again. Errors are asked again by the next start, since what was wrong may
    have been put right, so their lines go when a folder is opened.

    Attributes:
        left: the records without an answer, in the manifest's order.

    Args:
        folder: made if it is not there.
        settings: JSON-able, what every answer depends on.
        records: what is asked, each id once.
        problems: the lines of the manifest that cannot be asked.

    Raises:
        DuetError: another process writes there, the folder belongs to other settings or records, or it holds something
            else.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], records: Sequence[Record], problems: Sequence[Skipped] = ()
    ):
        from filelock import FileLock, Timeout

        self.folder, self.records, self.file = folder, {record.id: record for record in records}, folder / ANSWERS
        if folder.exists() and not folder.is_dir():
            raise DuetError(f"output folder {str(folder)!r} is a file: give another folder.")
        with writing(folder, WHAT):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / LOCK)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise DuetError(
                    f"another duet batch is writing to {str(folder)!r}: wait for it, or give another folder."
                ) from error
        try:
            self._claim(json.loads(json.dumps(settings)))
            self._open(problems)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write here."""
        self._lock.release()

    def _claim(self, settings: dict[str, Any]) -> None:
        """Take the folder for these settings, or find that it has them."""
        file = self.folder / SETTINGS
        if not file.exists():
            others = [entry.name for entry in self.folder.iterdir() if not entry.name.startswith((SETTINGS, LOCK))]
            if others:
                raise DuetError(
                    f"output folder {str(self.folder)!r} holds other files ({', '.join(sorted(others)[:3])}): "
                    "give a new or empty one."
                )
            self.settings = settings
            self._write_settings()
            return
        self.settings = _parsed(file, file.read_bytes())
        then, now = flattened(self.settings), flattened(settings)
        for name in [*now, *(name for name in then if name not in now and name != "weights")]:
            if then.get(name) != now.get(name):
                self._refuse(f"its {name} was {json.dumps(then.get(name))} and is {json.dumps(now.get(name))} now")

    def _open(self, problems: Sequence[Skipped]) -> None:
        """Read what was answered, and write anew what is wrong with the manifest."""
        drop_half_a_line(self.file)
        written = self.file.read_bytes().splitlines() if self.file.exists() else []
        lines = [_parsed(self.file, line) for line in written]
        answers = [line for line in lines if "answer" in line]
        for line in answers:
            record = self.records.get(line["id"])
            now = line if record is None else line | line_of(record)
            for name, value in now.items():
                if line.get(name) != value:
                    self._refuse(
                        f"its record {line['id']!r} had {name} {json.dumps(line.get(name))} and has "
                        f"{json.dumps(value)} now"
                    )
        self.done = {line["id"] for line in answers}
        self.left = [record for record in self.records.values() if record.id not in self.done]
        if len(answers) < len(lines):
            write_whole(self.file, as_lines(answers), WHAT)
        self.append(self._errors(problems))

    def _errors(self, problems: Sequence[Skipped]) -> list[dict[str, Any]]:
        """A line for each line of the manifest that cannot be asked; its id is null where another has the same."""
        used, earlier, lines = {*self.records}, self.done - self.records.keys(), list[dict[str, Any]]()
        for problem in problems:
            if problem.id not in earlier:
                name = None if problem.id in used else problem.id
                lines.append({"id": name, "line": problem.line, "error": problem.reason})
                used.add(str(problem.id))
        return lines

    def check_weights(self, digest: str) -> None:
        """Refuse answers of other weights than those that answered here before; of the first, remember it.

        Raises:
            DuetError: they are others.
        """
        if "weights" not in self.settings:
            self.settings["weights"] = digest
            self._write_settings()
        if self.settings["weights"] != digest:
            self._refuse("its weights are others, though its model has the same name")

    def add(self, lines: Iterable[dict[str, Any]]) -> int:
        """Write what workers found of records, as soon as it is there; what is written already is passed over.

        Args:
            lines: with an `id` each, and an answer or an error.

        Returns:
            How many were new.
        """
        new = []
        for line in lines:
            if line["id"] not in self.done:
                self.done.add(line["id"])
                record = self.records[line["id"]]
                more = {"line": record.line} if "error" in line else {}
                new.append(line_of(record) | more | line)
        self.append(new)
        return len(new)

    def append(self, lines: Sequence[dict[str, Any]]) -> None:
        """Write whole lines, and have them on the disk before returning."""
        with writing(self.folder, WHAT), self.file.open("ab") as file:
            file.write(as_lines(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> list[dict[str, Any]]:
        """All lines in the manifest's order; what it does not name any more comes last."""
        lines = [_parsed(self.file, line) for line in self.file.read_bytes().splitlines()]
        place = {name: record.line for name, record in self.records.items()}
        lines.sort(key=lambda line: place.get(line["id"]) or line.get("line", math.inf))
        write_whole(self.file, as_lines(lines), WHAT)
        return lines

    def _write_settings(self) -> None:
        write_whole(self.folder / SETTINGS, json.dumps(self.settings, indent=1) + "\n", WHAT)

    def _refuse(self, what: str) -> None:
        raise DuetError(f"output folder {str(self.folder)!r} belongs to another run: {what}; give another folder.")


def line_of(record: Record) -> dict[str, Any]:
    """What a line says of its record, as the manifest has it."""
    return {
        "id": record.id, "image" if record.video is None else "video": record.source, "question": record.question,
    }  # fmt: skip


def _parsed(file: Path, text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DuetError(f"{str(file)!r} is not as duet batch wrote it ({error}): give another folder.") from error
    if not isinstance(found, dict) or (file.name == ANSWERS and "id" not in found):
        raise DuetError(f"{str(file)!r} is not as duet batch wrote it: give another folder.")
    return found
