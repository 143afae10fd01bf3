"""Ask every record under every run, and report: the one function behind `duet eval`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DuetError
from ..timing import versions
from .answering import Answer, Asker, Batch
from .metrics import score
from .processes import Process
from .records import Problem, Record
from .runs import FULL, Run, full_model
from .store import Folder, Key

TIMED = 32  # batches whose first record is asked once more alone, for the time to its first token


def evaluate(
    model: Any,
    processor: Any,
    records: Sequence[Record],
    runs: Sequence[Run],
    out: Path,
    *,
    batch_size: int = 16,
    seed: int = 0,
    max_new_tokens: int | None = None,
    strict: bool = False,
    problems: Sequence[Problem] = (),
    about: dict[str, Any] | None = None,
    process: Process = Process(),
    advance: Callable[[int], Any] = lambda answers: None,
) -> dict[str, Any] | None:
    """Answer, score and report; started again with the same arguments, it goes on where it was stopped.

    A batch is asked under every run before the next one, so that all runs meet the machine in the same state.
    What a method draws at random depends on the seed, the run and the batch alone, so neither a stop nor the number
    of processes changes an answer.

    Args:
        model, processor: a supported model and its processor.
        records: what to ask, each id once.
        runs: what to compare; the full model is always run, first.
        out: folder for the answers and the report; one of the same settings goes on.
        batch_size: prompts at a time.
        seed: of random methods and of the bootstrap.
        max_new_tokens: the longest answer; None for the model's own limit, or 32.
        strict: stop at the first record that cannot be asked, instead of reporting it.
        problems: what was found wrong before; it is counted in the report.
        about: JSON-able settings to report, for example {"model": ..., "data": ...}; other ones are another run.
        process: which of several processes this is; only the first one reports.
        advance: called with the number of answers given since the last call.

    Returns:
        What `results.json` holds; None in every process but the first.

    Raises:
        ValueError: `out` belongs to another run, nothing can be asked, or with `strict` a record cannot.
    """
    runs = list(runs) if any(run.method == FULL for run in runs) else [full_model(), *runs]
    runs.sort(key=lambda run: run.method != FULL)
    if strict and problems:
        raise DuetError(f"{problems[0]} (--strict stops here)")
    if not records:
        raise DuetError(f"there is nothing to ask{f': {problems[0]}' if problems else '.'}")
    asker = Asker(model, processor, max_new_tokens, seed)
    settings = (about or {}) | {
        "runs": [run.described() for run in runs],
        "batch_size": batch_size,
        "seed": seed,
        "max_new_tokens": asker.max_new_tokens,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "weights": fingerprint(model),
        "records": digest(records),
        "versions": versions(),
    }
    folder = Folder(out, settings, process.rank)
    ask_all(asker, records, runs, folder, batch_size, strict, process, advance)
    if not process.first:
        return None
    answers, failed = _gather(folder, records, runs)
    from .report import report

    asked = [record for record in records if record.id not in failed]
    lines = {record.id: record.line for record in records}
    found = [*problems, *(Problem(reason, lines.get(name), name) for name, reason in failed.items())]
    return report(asker, asked, runs, answers, settings, found, folder)


def ask_all(
    asker: Asker,
    records: Sequence[Record],
    runs: list[Run],
    folder: Folder,
    batch_size: int,
    strict: bool,
    process: Process,
    advance: Callable[[int], Any],
) -> None:
    """Give every answer that is not in the folder yet, of the batches that are this process's."""
    done, failed = set(folder.answered()), folder.problems()
    batches = batches_of(records, batch_size)
    step = max(1, len(batches) // TIMED)
    warm = False
    for number, batch in enumerate(batches):
        if number % process.count != process.rank:
            continue
        left = [run for run in runs if any((*run.key, r.id) not in done and r.id not in failed for r in batch)]
        advance(len(batch) * (len(runs) - len(left)))
        if not left:
            continue
        prepared, alone, wrong = prepare(asker, batch, timed=number % step == 0)
        if wrong and strict:
            name, reason = next(iter(wrong.items()))
            raise DuetError(f"{_at(batch, name)}{reason} (--strict stops here)")
        folder.append({"id": name, "problem": reason} for name, reason in wrong.items() if name not in failed)
        if prepared is None:
            continue
        if not warm:
            asker.ask(runs[0], alone or prepared)
            warm = True
        for run in left:
            given = asker.ask(run, prepared)
            if alone is None:
                first = given[0].first if len(given) == 1 else None
            else:
                first = asker.ask(run, alone)[0].first
            lines = [
                line(run, record, answer, first if row == 0 else None)
                for row, (record, answer) in enumerate(zip(prepared.records, given, strict=True))
            ]
            folder.append(one for one in lines if (*run.key, one["id"]) not in done)
            advance(len(batch))


def prepare(
    asker: Asker, batch: Sequence[Record], timed: bool
) -> tuple[Batch | None, Batch | None, dict[str, str]]:
    """The batch without records that cannot be asked, its first record alone if that is timed, and what is wrong."""
    good, media, wrong = [], [], {}
    for record in batch:
        try:
            media.append(asker.medium(record))
            good.append(record)
        except DuetError as error:
            wrong[record.id] = str(error)
    if not good:
        return None, None, wrong
    alone = asker.prepare(good[:1], media[:1]) if timed and len(good) > 1 else None
    return asker.prepare(good, media), alone, wrong


def batches_of(records: Sequence[Record], size: int) -> list[list[Record]]:
    """Images in batches of `size`, in order; each video alone, as their frames differ in number."""
    batches: list[list[Record]] = []
    for record in records:
        fits = batches and len(batches[-1]) < size and batches[-1][-1].video is None and record.video is None
        if fits:
            batches[-1].append(record)
        else:
            batches.append([record])
    return batches


def line(run: Run, record: Record, answer: Answer, first: float | None) -> dict[str, Any]:
    """A line of `answers.jsonl`."""
    return {
        "method": run.method,
        "budget": run.budget,
        "id": record.id,
        "answer": answer.text,
        "score": score(record.metric, answer.text, record.expected),
        "tokens_in": answer.tokens_in,
        "tokens_avg": round(answer.tokens_avg, 4),
        "tokens_last": answer.tokens_last,
        "kv_bytes": answer.kv_bytes,
        "seconds": round(answer.seconds, 6),
        "ttft_ms": None if first is None else round(1000 * first, 3),
    }


def _gather(
    folder: Folder, records: Sequence[Record], runs: list[Run]
) -> tuple[dict[Key, dict[str, Any]], dict[str, str]]:
    """All answers, once the other processes have given theirs."""
    while True:
        started = time.monotonic()
        answers, failed = folder.answered(), folder.problems()
        if all((*run.key, r.id) in answers for r in records if r.id not in failed for run in runs):
            folder.finish(runs, [record.id for record in records], answers)
            return answers, failed
        # reading takes longer the more there is
        time.sleep(1 + 2 * (time.monotonic() - started))


def _at(batch: Sequence[Record], name: str) -> str:
    number = next((record.line for record in batch if record.id == name), None)
    return "" if number is None else f"line {number}: "


def fingerprint(model: Any) -> str:
    """SHA-256 of the first values of every weight: the same model under another name is the same."""
    found = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        found.update(f"{name} {tuple(weight.shape)} ".encode())
        found.update(weight.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return found.hexdigest()


def digest(records: Sequence[Record]) -> str:
    """SHA-256 of what is asked; of picture files, their size."""
    found = hashlib.sha256()
    for record in records:
        file = record.video or record.picture
        size = file.stat().st_size if isinstance(file, Path) else 0
        found.update(f"{json.dumps(record.described())} {size}\n".encode())
    return found.hexdigest()
