"""The output folder: what was asked, every answer as soon as it is there, and what is left to do after a stop."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import DuetError
from ..inputs.files import write_whole, writing
from ..inputs.plain_data import flattened
from .runs import Run

Key = tuple[str, float | None, str]  # method, budget, record
PARTS, ANSWERS, SETTINGS, RECORDS = "parts", "answers.jsonl", "settings.json", "records.jsonl"
RESULTS = "the results"  # begins the sentence where they cannot be written
NAMES = ("model", "data", "limit")  # the weights' and the records' own digests tell better


def key_of(line: dict[str, Any]) -> Key:
    return line["method"], line["budget"], line["id"]


class Folder:
    """Answers on disk. Every process appends to a file of its own; all of them together are what was answered.

    An answer depends on the settings, on its run and on its record, and on nothing else: so runs and records may be
    added, and what was answered stays.

    Args:
        path: made if it is not there.
        settings: JSON-able, what all answers depend on; `model`, `data` and `limit` are names that are not compared.
        runs: what is asked under.
        records: JSON-able, with an `id` each: what is asked.
        rank: number of this process.

    Raises:
        ValueError: the folder belongs to another run or holds something else.
    """

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        runs: Sequence[Run] = (),
        records: Sequence[dict[str, Any]] = (),
        rank: int = 0,
    ):
        self.path, self.rank = path, rank
        if path.exists() and not path.is_dir():
            raise DuetError(f"output folder {str(path)!r} is a file: give another folder.")
        with writing(path, "the answers"):
            self._claim(_plain(settings), _plain([run.described() for run in runs]), _plain(list(records)))
        (path / PARTS).mkdir(exist_ok=True)
        self.file = path / PARTS / f"answers-{rank}.jsonl"
        drop_half_a_line(self.file)

    def _claim(self, settings: dict[str, Any], runs: list[Any], records: list[Any]) -> None:
        file, records_file = self.path / SETTINGS, self.path / RECORDS
        before: dict[str, Any] = {}
        listed: dict[str, Any] = {}
        if file.exists():
            before = _parsed(file, file.read_bytes())
            if records_file.exists():
                lines = records_file.read_bytes().splitlines()
                listed = {line["id"]: line for line in (_parsed(records_file, line) for line in lines)}
            self._compare(before, settings, runs, listed, {record["id"]: record for record in records})
        elif self.path.exists():
            others = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(SETTINGS)]
            if others:
                raise DuetError(
                    f"output folder {str(self.path)!r} holds other files ({', '.join(sorted(others)[:3])}): "
                    "give a new or empty one."
                )
        self.path.mkdir(parents=True, exist_ok=True)
        new = {_key(run) for run in runs}
        now = settings | {"runs": [*runs, *(run for run in before.get("runs", []) if _key(run) not in new)]}
        # of processes that start together the last one's settings stand, and are the same
        if now != before:
            write_whole(file, json.dumps(now, indent=1) + "\n", RESULTS, self.rank)
        held = listed | {record["id"]: record for record in records}
        if held != listed:
            write_whole(records_file, as_lines(held.values()), RESULTS, self.rank)

    def _compare(
        self,
        before: dict[str, Any],
        settings: dict[str, Any],
        runs: list[Any],
        listed: dict[str, Any],
        records: dict[str, Any],
    ) -> None:
        def refuse(what: str) -> None:
            raise DuetError(f"output folder {str(self.path)!r} belongs to another run: {what}; give another folder.")

        answered = {line["id"] for line in self.lines() if "answer" in line}
        then, now = flattened(before), flattened(settings)
        for name in sorted({*then, *now} - {*NAMES, "runs", "weights"}):
            if then.get(name) != now.get(name):
                refuse(f"its {name} was {_shown(then.get(name))} and is {_shown(now.get(name))} now")
        if then.get("weights") != now.get("weights"):
            refuse(f"its weights are others (its model was {then.get('model')!r} and is {now.get('model')!r} now)")
        configs = {_key(run): run["config"] for run in before.get("runs", [])}
        for run in runs:
            for name, value in run["config"].items():
                old = configs.get(_key(run), run["config"]).get(name)
                if old != value and name != "version":  # release 0.1 wrote none
                    label = run["method"] if run["budget"] is None else f"{run['method']} {run['budget']:g}"
                    refuse(f"its {label} had {name} {_shown(old)} and has {_shown(value)} now")
        if answered and records and not records.keys() & listed.keys():
            refuse(f"it answers other records (of {then.get('data')!r}, and now {now.get('data')!r})")
        for record in (one for name, one in records.items() if name in answered):
            for name, value in record.items():
                old = listed.get(record["id"], {}).get(name)
                if old != value:
                    refuse(f"its record {record['id']!r} had {name} {_shown(old)} and has {_shown(value)} now")

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
        """Record -> why it could not be asked, as last found; it may have been asked since."""
        return {line["id"]: line["problem"] for line in self.lines() if "problem" in line}

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Write lines, and have them on the disk before returning."""
        with writing(self.path, "the answers"), self.file.open("ab") as file:
            file.write(as_lines(lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def finish(self, runs: list[Run], ids: list[str], answers: dict[Key, dict[str, Any]]) -> None:
        """Put the processes' files together into `answers.jsonl`, each answer once.

        First those of this run by record, then by run; then what was answered before and not asked for now.
        """
        wanted = [(*run.key, name) for name in ids for run in runs if (*run.key, name) in answers]
        listed = {*wanted}
        lines = [answers[key] for key in [*wanted, *(key for key in answers if key not in listed)]]
        problems = [{"id": name, "problem": problem} for name, problem in self.problems().items()]
        write_whole(self.path / ANSWERS, as_lines(lines + problems), RESULTS)
        for file in (self.path / PARTS).glob("answers-*.jsonl"):
            file.unlink()
        (self.path / PARTS).rmdir()


def _parsed(file: Path, text: bytes) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DuetError(f"{str(file)!r} is not as duet eval wrote it ({error}): give another folder.") from error
    if not isinstance(data, dict):
        raise DuetError(f"{str(file)!r} is not as duet eval wrote it: give another folder.")
    return data


def drop_half_a_line(file: Path) -> None:
    """Cut what a killed process was writing."""
    if file.exists():
        whole = file.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            os.truncate(file, end)


def as_lines(entries: Iterable[dict[str, Any]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def _plain(value: Any) -> Any:
    """As it comes back from a file: lists for tuples."""
    return json.loads(json.dumps(value))


def _key(run: dict[str, Any]) -> tuple[str, float | None]:
    return run["method"], run["budget"]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
