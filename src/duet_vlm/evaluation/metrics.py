"""How an answer is scored: exact match, VQA soft accuracy, yes/no (POPE) and multiple choice, as their authors do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..errors import DuetError
from .vqa_text import normalize

METRICS = ("exact_match", "vqa", "yes_no", "multiple_choice")
LETTERS = "ABCDE"
LEAST_VQA_ANSWERS = 4  # with fewer people, three others cannot agree


def score(metric: str, answer: str, expected: Sequence[str]) -> float:
    """0 to 1 for one answer.

    Args:
        metric: one of `METRICS`.
        answer: what the model said.
        expected: the right answers; for "vqa", what each person answered.
    """
    if metric == "exact_match":
        return float(_plain(answer) in {_plain(one) for one in expected})
    if metric == "vqa":
        return vqa_accuracy(answer, expected)
    if metric == "yes_no":
        return float(yes_or_no(answer) == expected[0].strip().lower())
    return float(chosen_letter(answer) == expected[0].strip().upper())


def right_answers(metric: str, expected: Sequence[str]) -> str:
    """The right answers for people; for "vqa" with how many of the people asked said each, the most common first."""
    if metric != "vqa":
        return " or ".join(dict.fromkeys(expected))
    said = Counter(normalize(one) for one in expected)
    return ", ".join(f"{one or '(nothing)'} ({n} of {len(expected)} people)" for one, n in said.most_common())


def judged(metric: str, answer: str, expected: Sequence[str]) -> str:
    """How an answer was read, where that is not plain to see: whose answer counted, or which word or letter was found.

    Args:
        metric: one of `METRICS`.
        answer: what the model said.
        expected: as for `score`.
    """
    if metric == "vqa":
        agree = [normalize(one) == normalize(answer) for one in expected]
        return f"said by {sum(agree) or 'none'} of {len(expected)} people: score {score(metric, answer, expected):.2f}"
    read: str | None = answer
    if metric == "yes_no":
        read = yes_or_no(answer)
    elif metric == "multiple_choice":
        read = chosen_letter(answer)
    if read is None:
        return "no letter in it"
    return "" if _plain(read) == _plain(answer) else f"read as {read}"


def check_expected(metric: str, expected: Sequence[str]) -> None:
    """Raises ValueError for an unknown metric, or right answers that it cannot score."""
    if metric not in METRICS:
        raise DuetError(f"metric {metric!r} is unknown: choose one of {', '.join(METRICS)}.")
    if not expected:
        raise DuetError("there is no right answer: give 'answer', a text, or 'answers', a list of texts.")
    first = expected[0].strip()
    if metric == "vqa" and len(expected) < LEAST_VQA_ANSWERS:
        raise DuetError(
            f"metric 'vqa' compares with several people's answers, and here are {len(expected)}: "
            f"give at least {LEAST_VQA_ANSWERS}, or choose metric 'exact_match'."
        )
    if metric == "yes_no" and (len(expected) > 1 or first.lower() not in ("yes", "no")):
        raise DuetError(f"metric 'yes_no' has one right answer, yes or no, not {', '.join(map(repr, expected))}.")
    if metric == "multiple_choice" and (len(expected) > 1 or len(first) != 1 or first.upper() not in LETTERS):
        raise DuetError(
            f"metric 'multiple_choice' has one right answer, a letter from {LETTERS[0]} to {LETTERS[-1]}, "
            f"not {', '.join(map(repr, expected))}."
        )


def _plain(text: str) -> str:
    """Lower case, single spaces, no full stop at the end: as GQA answers are compared."""
    return " ".join(text.lower().split()).rstrip(".").rstrip()


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """VQA (arXiv 1505.00468): min(people who said it / 3, 1), averaged over every choice of all people but one.

    Answer and people's answers are normalised alike, as https://visualqa.org/evaluation.html describes.
    """
    said = normalize(answer)
    agree = [normalize(one) == said for one in people]
    matches = sum(agree)
    return sum(min(1.0, (matches - own) / 3) for own in agree) / len(agree)


def yes_or_no(answer: str) -> str:
    """POPE (arXiv 2305.10355): "no" if the first sentence holds the word No, no or not, else "yes"."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def yes_no_figures(answers: Sequence[str], expected: Sequence[str]) -> dict[str, Any]:
    """POPE's figures of a set of yes/no questions, "yes" being positive; None where a share is of nothing.

    Returns:
        {"accuracy", "precision", "recall", "f1", "yes_ratio"}, each 0 to 1.
    """
    pairs = [(yes_or_no(a) == "yes", e.strip().lower() == "yes") for a, e in zip(answers, expected, strict=True)]
    hits = sum(said and true for said, true in pairs)
    said_yes, are_yes = sum(said for said, _ in pairs), sum(true for _, true in pairs)
    return {
        "accuracy": sum(said == true for said, true in pairs) / len(pairs),
        "precision": hits / said_yes if said_yes else None,
        "recall": hits / are_yes if are_yes else None,
        # 2 precision recall / (precision + recall)
        "f1": 2 * hits / (said_yes + are_yes) if said_yes + are_yes else None,
        "yes_ratio": said_yes / len(pairs),
    }


def chosen_letter(answer: str) -> str | None:
    """ScienceQA as LLaVA scores it: the letter alone, "B. text", or "The answer is B"; None without a letter."""
    text = answer.replace("\n", ". ")
    found = (
        re.fullmatch(rf"\s*([{LETTERS}])\s*", text)
        or re.match(rf"([{LETTERS}])\. ", text)
        or re.search(rf"The answer is ([{LETTERS}])\.", text)
        or re.search(rf"The answer is ([{LETTERS}])", text)
    )
    return found[1] if found else None
