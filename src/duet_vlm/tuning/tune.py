"""From questions to the cheapest setting that keeps what was asked: the function behind `duet tune`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..config.decoder_shape import DecoderShape
from ..errors import DuetError
from ..evaluation.answering import Asker
from ..evaluation.identity import described, weights_fingerprint
from ..evaluation.records import Record, Skipped, source_of
from ..evaluation.report import command_line
from ..evaluation.runs import FULL, Run, full_model
from ..evaluation.statistics import LEAST_SOURCES
from ..evaluation.store import RESULTS, Folder
from ..inputs.files import write_whole
from ..measuring.timing import hardware, versions
from .asking import Answers
from .choosing import Choice, choose
from .goal import Goal
from .judged import Asked
from .summary import promise_of, row_of

TUNED, PLAN, SETTINGS = "tune.json", "plan.json", "duet.json"
THRESHOLDS = (1.0, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.0)
COMPARING = 0.4  # of the time, at most, goes to comparing settings


class Pace:
    """What a time limit leaves: how many rounds, and how many questions of the test. Both are noted, to go on alike.

    Args:
        file: to note them in.
        minutes: the limit; None for none.
        answers: counts the time of an answer.
    """

    def __init__(self, file: Path, minutes: float | None, answers: Answers):
        self.file, self.limit, self.answers = file, None if minutes is None else 60 * minutes, answers
        self.started = self.last = time.monotonic()
        self.plan = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def enough(self, rounds: int) -> bool:
        """Whether no other round fits, where each takes about as long as the one before."""
        now = time.monotonic()
        took, self.last = now - self.last, now
        if "rounds" not in self.plan and self.limit is not None and now - self.started + took > COMPARING * self.limit:
            self._note(rounds=rounds)
        return bool(rounds >= self.plan.get("rounds", rounds + 1))

    def most(self, settings: int) -> int | None:
        """How many questions fit what is left of the time; nothing that they are answered with has a say in it."""
        if "questions" not in self.plan:
            questions = None
            if self.limit is not None and self.answers.given:
                left = self.limit - (time.monotonic() - self.started)
                questions = max(0, int(left * self.answers.given / self.answers.seconds / (settings + 1)))
            self._note(questions=questions)
        found: int | None = self.plan["questions"]
        return found

    def _note(self, **what: Any) -> None:
        self.plan |= what
        write_whole(self.file, json.dumps(self.plan) + "\n", RESULTS)


def tune(
    model: Any,
    processor: Any,
    records: Sequence[Record],
    runs: Sequence[Run],
    out: Path,
    goal: Goal,
    *,
    batch_size: int = 16,
    seed: int = 0,
    max_new_tokens: int | None = None,
    minutes: float | None = None,
    problems: Sequence[Skipped] = (),
    about: dict[str, Any] | None = None,
    advance: Callable[[int], Any] = lambda answers: None,
) -> dict[str, Any]:
    """Find the cheapest setting that keeps what was asked; started again, it goes on where it was stopped.

    Args:
        model, processor: a supported model and its processor.
        records: what to ask, each id once.
        runs: the settings to choose from.
        out: folder for the answers, the report, and the settings that were chosen (`duet.json`).
        goal: what is to be kept.
        batch_size: prompts at a time.
        seed: of random methods, of the split of the questions and of the intervals.
        max_new_tokens: the longest answer; None for the model's own limit, or 32.
        minutes: time limit; what does not fit is left out.
        problems: what was found wrong before; it is counted in the report.
        about: JSON-able settings to report.
        advance: called with the number of answers given since the last call.

    Returns:
        What `tune.json` holds.

    Raises:
        DuetError: questions about too few images, or a folder of another run.
    """
    images = len({source_of(record) for record in records})
    if images < 3 * LEAST_SOURCES:
        raise DuetError(
            f"{images} images are too few to tell what other images need: give questions about {3 * LEAST_SOURCES} or "
            "more, and about hundreds for a share near 1."
        )
    compressed = [run for run in runs if run.method != FULL]
    if goal.agree:  # a fallback of 0 notes the leads
        compressed = [replace(run, config=replace(run.config, fallback=0.0)) for run in compressed]
    listed = [full_model(), *compressed]
    asker = Asker(model, processor, max_new_tokens, seed, DecoderShape.of(model.config, model.dtype.itemsize))
    settings = (about or {}) | {
        "batch_size": batch_size, "seed": seed, "max_new_tokens": asker.max_new_tokens,
        "dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type,
        "weights": weights_fingerprint(model), "versions": versions(),
    }  # fmt: skip
    folder = Folder(out, settings, listed, described(records))
    answers = Answers(asker, records, listed, folder, goal.agree, batch_size, advance)
    thresholds = THRESHOLDS if goal.agree else (0.0,)
    kind = f"{'agree' if goal.agree else 'retain'}-{goal.share:g}-{goal.confidence:g}"
    pace = Pace(out / f"{kind}-{PLAN}", minutes, answers)
    choice = choose(
        list(answers.runs), [source_of(record) for record in records], answers.ask,
        Asked(goal.share, goal.confidence, thresholds, seed), enough=pace.enough, most=pace.most,
    )  # fmt: skip
    found = folder.answered()
    failed = {name: reason for name, reason in folder.problems().items() if (*listed[0].key, name) not in found}
    lines = {record.id: record.line for record in records}
    wrong = [*problems, *(Skipped(reason, lines.get(name), name) for name, reason in failed.items())]
    results = {
        "goal": asdict(goal),
        "questions": len(records) - len(failed),
        "sources": images,
        **told(choice, goal.share, answers, found),
        "skipped": [asdict(problem) for problem in wrong],
        "settings": {name: value for name, value in settings.items() if name != "versions"},
        "versions": settings["versions"],
        "hardware": hardware(settings["device"]),
        "command": command_line(),
    }
    write_whole(out / TUNED, json.dumps(results, indent=1) + "\n", RESULTS)
    (out / SETTINGS).unlink(missing_ok=True)
    if choice.chosen is not None:
        config = answers.runs[choice.chosen.name].config
        config = replace(config, fallback=choice.chosen.threshold or None)
        config.save(out / SETTINGS, promise=promise_of(results))
    from .page import write_page

    write_page(answers, results, found, out)
    return results


def told(choice: Choice, share: float, answers: Answers, found: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    """The choice as plain data: the chosen one, what was tested, the rounds, and a row for every setting."""
    rows = [row_of(run, choice, share, answers, found) for run in answers.runs.values()]
    full = [line for (*key, _), line in found.items() if tuple(key) == answers.full.key]
    count = max(1, len(full))
    return {
        "full": {name: sum(line[name] for line in full) / count for name in ("tokens_avg", "kv_bytes", "flops")},
        "chosen": None if choice.chosen is None else asdict(choice.chosen),
        "nearest": None if choice.nearest is None else asdict(choice.nearest),
        "tested": [asdict(one) for one in choice.tested],
        "rounds": [[asdict(one) for one in listed] for listed in choice.rounds],
        "runs": sorted(rows, key=lambda row: -row["tokens_avg"]),
    }
