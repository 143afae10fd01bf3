"""Every metric on hand-made cases, against its authors' definition."""

from __future__ import annotations

import pytest

from duet_vlm.evaluation.metrics import (
    METRICS,
    check_expected,
    chosen_letter,
    score,
    vqa_accuracy,
    yes_no_figures,
    yes_or_no,
)
from duet_vlm.evaluation.vqa_text import normalize


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("red", ["red"], True),
        (" Red. ", ["red"], True),
        ("top  left", ["Top left"], True),
        ("red car", ["red"], False),
        ("", ["red"], False),
        ("grey", ["gray", "grey"], True),
        ("1.5", ["1.5"], True),
        ("15", ["1.5"], False),
    ],
)
def test_exact_match(answer: str, expected: list[str], right: bool) -> None:
    assert score("exact_match", answer, expected) == right


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Dog.", "dog"),  # lower case, articles and full stops gone
        ("two", "2"),  # numbers to ten
        ("none", "0"),
        ("eleven", "eleven"),
        ("1.5", "1.5"),  # decimals stay
        ("1,000 people!", "1000 people"),  # a comma between digits goes, and with it every mark
        ("red,blue", "red blue"),  # a mark inside becomes a space
        ("red, blue", "red blue"),  # a mark beside a space goes
        ("t-shirt", "t shirt"),
        ("dont know", "don't know"),  # apostrophes come back
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("oclock", "o'clock"),
        ("its well", "its well"),  # words that are words without one
        ("man's hat", "man's hat"),  # an apostrophe may be a possessive
        ("3:30", "3:30"),  # a colon may be a time
        ("a\tcat\n", "cat"),
    ],
)
def test_vqa_normalisation(text: str, normal: str) -> None:
    assert normalize(text) == normal


def vqa_by_definition(answer: str, people: list[str]) -> float:
    """The mean over all choices of nine of ten people of min(how many of them said it / 3, 1), spelled out."""
    shares = []
    for left_out in range(len(people)):
        others = [normalize(one) for i, one in enumerate(people) if i != left_out]
        shares.append(min(1.0, others.count(normalize(answer)) / 3))
    return sum(shares) / len(shares)


@pytest.mark.parametrize(
    ("matches", "accuracy"),
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],  # the values the VQA authors give for 10 people
)
def test_vqa_accuracy_of_ten_people(matches: int, accuracy: float) -> None:
    people = ["The cat."] * matches + [f"dog{i}" for i in range(10 - matches)]
    assert vqa_accuracy("cat", people) == pytest.approx(accuracy)
    assert vqa_accuracy("cat", people) == pytest.approx(vqa_by_definition("cat", people))


def test_vqa_accuracy_normalises_both_sides() -> None:
    people = ["two", "2", "Two.", "the two"] + ["three"] * 6
    assert score("vqa", " TWO ", people) == 1.0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("yes", "yes"),
        ("No, there is no dog.", "no"),
        ("There is not a dog in the picture.", "no"),
        ("Yes. There is no cat.", "yes"),  # the first sentence only
        ("no,", "no"),
        ("nothing", "yes"),  # whole words only, and whatever is not a no is a yes
        ("NO", "yes"),
        ("", "yes"),
    ],
)
def test_yes_or_no(answer: str, said: str) -> None:
    assert yes_or_no(answer) == said


def test_pope_figures() -> None:
    answers = ["yes"] * 5 + ["no"] * 5
    expected = ["yes", "yes", "yes", "no", "no", "no", "no", "no", "no", "yes"]
    found = yes_no_figures(answers, expected)
    # 3 hits, 2 false alarms, 1 miss, 4 right refusals
    assert found["accuracy"] == 0.7 and found["yes_ratio"] == 0.5
    assert found["precision"] == 3 / 5 and found["recall"] == 3 / 4
    assert found["f1"] == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    assert [score("yes_no", a, [e]) for a, e in zip(answers, expected, strict=True)].count(1.0) == 7


def test_pope_figures_of_nothing() -> None:
    assert yes_no_figures(["no"], ["no"]) == {
        "accuracy": 1.0, "precision": None, "recall": None, "f1": None, "yes_ratio": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" B\t", "B"),
        ("B. the second", "B"),
        ("The answer is C.", "C"),
        ("I think. The answer is D", "D"),
        ("A cat", None),
        ("b", None),
        ("F", None),
        ("", None),
    ],
)
def test_chosen_letter(answer: str, letter: str | None) -> None:
    assert chosen_letter(answer) == letter
    assert score("multiple_choice", answer, ["b"]) == (letter == "B")


@pytest.mark.parametrize(
    ("metric", "expected", "message"),
    [
        ("bleu", ["a"], f"metric 'bleu' is unknown: choose one of {', '.join(METRICS)}."),
        ("exact_match", [], "there is no right answer"),
        ("vqa", ["a", "b", "c"], "give at least 4"),
        ("yes_no", ["maybe"], "yes or no, not 'maybe'"),
        ("yes_no", ["yes", "no"], "has one right answer"),
        ("multiple_choice", ["AB"], "a letter from A to E"),
    ],
)
def test_what_cannot_be_scored(metric: str, expected: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        check_expected(metric, expected)
