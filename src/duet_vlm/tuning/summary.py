"""What came out, in rows and in words."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..evaluation.runs import Run
from .asking import Answers
from .choosing import Choice
from .judged import Seen

CHOSEN, KEEPS, FAILS, LITTLE, ASIDE = (
    "chosen", "keeps it, at a higher cost", "not shown to keep it", "keeps too little", "not needed",
)  # fmt: skip


def row_of(
    run: Run, choice: Choice, share: float, answers: Answers, found: dict[Any, dict[str, Any]]
) -> dict[str, Any]:
    """One setting: what it is, its mean cost on the questions that it was asked, and what was seen of it last.

    Its tokens and bytes are those without the guard; the costs of what was seen are those with it.
    """
    key, full = run.key, answers.full.key
    lines = [line for (*k, name), line in found.items() if tuple(k) == key and (*full, name) in found]
    seen = next((one for listed in reversed(choice.rounds) for one in listed if one.name == run.label), None)
    tests = [one for one in choice.tested if one.name == run.label]
    return {
        "label": run.label,
        "method": run.method,
        "budget": run.budget,
        "config": run.config.to_dict(),
        "asked": len(lines),
        "tokens_avg": round(_mean([line["tokens_avg"] for line in lines]), 3),
        "kv_bytes": round(_mean([line["kv_bytes"] for line in lines])),
        "verdict": verdict(run.label, choice, share, seen, tests),
        "seen": None if seen is None else asdict(seen),
        "test": asdict(tests[-1]) if tests else None,
    }


def verdict(name: str, choice: Choice, share: float, seen: Seen | None, tests: list[Seen]) -> str:
    """What became of a setting."""
    if choice.chosen is not None and choice.chosen.name == name:
        return CHOSEN
    if tests:
        return KEEPS if tests[-1].lower >= share else FAILS
    return LITTLE if seen is not None and seen.upper < share else ASIDE


def promise_of(results: dict[str, Any]) -> dict[str, Any]:
    """What is written beside the settings: of what, how much is kept at least, how sure that is, on which data."""
    goal, chosen = results["goal"], results["chosen"]
    return {
        "keeps": "answers" if goal["agree"] else "accuracy",
        "asked": goal["share"],
        "at_least": round(chosen["lower"], 6),
        "seen": round(chosen["share"], 6),
        "confidence": goal["confidence"],
        "questions": chosen["questions"],
        "model": results["settings"].get("model"),
        "data": results["settings"].get("data"),
        "weights": results["settings"]["weights"],
        "setting": chosen["name"],
    }


def sentence(results: dict[str, Any]) -> str:
    """The outcome in one or two sentences."""
    goal, chosen, nearest = results["goal"], results["chosen"], results["nearest"]
    of = "of the full model's answers" if goal["agree"] else "of the full model's accuracy"
    sure = f"at a confidence of {goal['confidence']:g}"
    if chosen is None:
        text = f"No setting was shown to keep {percent(goal['share'])} {of} {sure} for less than the full model costs."
        if nearest is not None:
            text += (
                f" The nearest, {named(nearest)}, kept {percent(nearest['share'])} of {nearest['questions']} "
                f"questions, at least {percent(nearest['lower'])}, at {percent(nearest['cost'])} of the full model's "
                "operations."
            )
        return text
    row = next(one for one in results["runs"] if one["label"] == chosen["name"])
    tokens = row["tokens_avg"] + chosen["again"] * results["full"]["tokens_avg"]
    again = f", {percent(chosen['again'])} of them given again" if chosen["again"] else ""
    return (
        f"{named(chosen)} keeps at least {percent(chosen['lower'])} {of} {sure} ({percent(chosen['share'])} of "
        f"{chosen['questions']} questions{again}): {tokens:.0f} of {results['full']['tokens_avg']:.0f} visual tokens a "
        f"layer, {percent(chosen['cost'])} of the operations of the prefill."
    )


def named(seen: dict[str, Any]) -> str:
    return str(seen["name"]) + (f" with fallback {seen['threshold']:g}" if seen["threshold"] else "")


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
