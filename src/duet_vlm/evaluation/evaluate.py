"""Ask every record under every run, and report: the one function behind `duet eval`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console.processes import Process
from ..errors import DuetError
from ..inputs.plain_data import digest
from ..measuring.timing import versions
from .answering import Answer, Asker, Batch
from .identity import described, weights_fingerprint
from .metrics import score
from .records import Record, Skipped
from .runs import FULL, Run, full_model
from .store import Folder, Key

if TYPE_CHECKING:
    from transformers import ProcessorMixin

TIMED = 32  # batches whose first record is asked once more alone, for the time to its first token


def evaluate(
    model: Any,
    processor: ProcessorMixin,
    records: Sequence[Record],
    runs: Sequence[Run],
    out: Path,
    *,
    batch_size: int = 16,
    seed: int = 0,
    max_new_tokens: int | None = None,
    strict: bool = False,
    problems: Sequence[Skipped] = (),
    about: dict[str, Any] | None = None,
    process: Process = Process(),
    advance: Callable[[int], Any] = lambda answers: None,
    on_start: Callable[[int], Any] = lambda answers: None,
) -> dict[str, Any] | None:
    """Answer, score and report; started again, it goes on where it was stopped and asks only what is missing.

    Runs and records may be added in a folder: an answer stays as long as its run, its record and the settings do.

    A batch is asked under every run before the next one, so that all runs meet the machine in the same state.
    What a method draws at random depends on the seed, the run and the image alone, so neither a stop nor the number
    of processes nor what else is asked changes an answer.

    Args:
        model, processor: a supported model and its processor.
        records: what to ask, each id once.
        runs: what to compare; the full model is always run, first.
        out: folder for the answers and the report; one of the same model and settings goes on.
        batch_size: prompts at a time.
        seed: of random methods and of the bootstrap.
        max_new_tokens: the longest answer; None for the model's own limit, or 32.
        strict: stop at the first record that cannot be asked, instead of reporting it.
        problems: what was found wrong before; it is counted in the report.
        about: JSON-able settings to report, for example {"model": ..., "data": ...}; others than those two and "limit"
            must be the same when a folder goes on.
        process: which of several processes this is; only the first one reports.
        advance: called with the number of answers given since the last call.
        on_start: called once with the number of answers that the folder has already, of those asked for.

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
        "batch_size": batch_size,
        "seed": seed,
        "max_new_tokens": asker.max_new_tokens,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "weights": weights_fingerprint(model),
        "versions": versions(),
    }
    listed = described(records)
    folder = Folder(out, settings, runs, listed, process.rank)
    answers_before = folder.answered()
    on_start(sum((*run.key, record.id) in answers_before for record in records for run in runs))
    ask_all(asker, records, runs, folder, batch_size=batch_size, strict=strict, process=process, advance=advance)
    if not process.is_main:
        return None
    answers, failed = _gather(folder, records, runs)
    from .report import write_report

    answered = [record for record in records if record.id not in failed]
    lines = {record.id: record.line for record in records}
    wrong = [*problems, *(Skipped(reason, lines.get(name), name) for name, reason in failed.items())]
    if not answered:  # the last reason is of the asking, if it came to that
        raise DuetError(f"nothing could be asked, for example {wrong[-1]}")
    settings |= {"runs": [run.described() for run in runs], "records": digest(listed)}
    return write_report(asker, answered, runs, answers, settings, wrong, folder)


def ask_all(
    asker: Asker,
    records: Sequence[Record],
    runs: list[Run],
    folder: Folder,
    *,
    batch_size: int,
    strict: bool,
    process: Process,
    advance: Callable[[int], Any],
) -> None:
    """Give every answer that is not in the folder yet, of the records that are this process's."""
    done, earlier = folder.answered(), folder.problems()
    shares = [share for n, share in enumerate(batches_of(records, batch_size)) if n % process.count == process.rank]
    mine = [record for share in shares for record in share if record.id not in earlier]
    if process.is_main:  # what was wrong may have been put right; the other processes leave it to this one
        mine += [record for record in records if record.id in earlier]
    waiting: dict[tuple[int, ...], list[Record]] = {}  # places of the runs that are missing -> records
    for record in mine:
        left = tuple(n for n, run in enumerate(runs) if (*run.key, record.id) not in done)
        waiting.setdefault(left, []).append(record)
        advance(len(runs) - len(left))
    batches = [(left, batch) for left, listed in waiting.items() if left for batch in batches_of(listed, batch_size)]
    step = max(1, len(batches) // TIMED)
    warm = False
    for number, (left, batch) in enumerate(batches):
        prepared, alone, wrong = prepare_batch(asker, batch, timed=number % step == 0)
        if wrong and strict:
            name, reason = next(iter(wrong.items()))
            raise DuetError(f"{_at(batch, name)}{reason} (--strict stops here)")
        folder.append({"id": name, "problem": reason} for name, reason in wrong.items())
        if prepared is None:
            continue
        if not warm:
            asker.ask(runs[0], alone or prepared)
            warm = True
        for run in (runs[place] for place in left):
            batch_answers = asker.ask(run, prepared)
            if alone is None:
                first_token = batch_answers[0].seconds_to_first_token if len(batch_answers) == 1 else None
            else:
                first_token = asker.ask(run, alone)[0].seconds_to_first_token
            lines = [
                line(run, record, answer, first_token if row == 0 else None)
                for row, (record, answer) in enumerate(zip(prepared.records, batch_answers, strict=True))
            ]
            folder.append(lines)
            advance(len(batch))


def prepare_batch(
    asker: Asker, batch: Sequence[Record], timed: bool
) -> tuple[Batch | None, Batch | None, dict[str, str]]:
    """The batch without records that cannot be asked, its first record alone if that is timed, and what is wrong."""
    good: list[tuple[Record, Any]] = []
    wrong: dict[str, str] = {}
    for record in batch:
        try:
            good.append((record, asker.load_media(record)))
        except DuetError as error:
            wrong[record.id] = str(error)
    try:
        whole = _together(asker, good)
    except DuetError:
        refused = _refused(asker, good)
        if not refused:  # each is good, so it is not the records
            raise
        wrong |= refused
        good = [(record, medium) for record, medium in good if record.id not in refused]
        whole = _together(asker, good)
    return whole, _together(asker, good[:1]) if timed and len(good) > 1 else None, wrong


def _together(asker: Asker, good: Sequence[tuple[Record, Any]]) -> Batch | None:
    return asker.prepare([record for record, _ in good], [medium for _, medium in good]) if good else None


def _refused(asker: Asker, good: Sequence[tuple[Record, Any]]) -> dict[str, str]:
    """Why each record cannot be asked, of those that cannot when they are alone."""
    reasons = {}
    for record, medium in good:
        try:
            asker.prepare([record], [medium])
        except DuetError as error:
            reasons[record.id] = str(error)
    return reasons


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


def line(run: Run, record: Record, answer: Answer, first_token: float | None) -> dict[str, Any]:
    """A line of `answers.jsonl`."""
    return {
        "method": run.method,
        "budget": run.budget,
        "id": record.id,
        "answer": answer.text,
        "score": score(record.metric, answer.text, record.expected) if record.expected else None,
        "tokens_in": answer.tokens_in,
        "tokens_avg": round(answer.tokens_avg, 4),
        "tokens_last": answer.tokens_last,
        "kv_bytes": answer.kv_bytes,
        "seconds": round(answer.seconds, 6),
        "ttft_ms": None if first_token is None else round(1000 * first_token, 3),
        **({} if answer.margin is None else {"margin": round(answer.margin, 6), "fell_back": answer.fell_back}),
        **({} if answer.flops is None else {"flops": answer.flops}),
    }


def _gather(
    folder: Folder, records: Sequence[Record], runs: list[Run]
) -> tuple[dict[Key, dict[str, Any]], dict[str, str]]:
    """All answers, once the other processes have given theirs."""
    while True:
        started = time.monotonic()
        answers, problems = folder.answered(), folder.problems()
        missing = {r.id for r in records if not all((*run.key, r.id) in answers for run in runs)}
        if missing <= problems.keys():
            failed = {name: reason for name, reason in problems.items() if name in missing}
            folder.finish(runs, [record.id for record in records], answers)
            return answers, failed
        # reading takes longer the more there is
        time.sleep(1 + 2 * (time.monotonic() - started))


def _at(batch: Sequence[Record], name: str) -> str:
    number = next((record.line for record in batch if record.id == name), None)
    return "" if number is None else f"line {number}: "
