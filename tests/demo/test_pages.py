"""The pages of the second benchmark: what stands where it is said to stand, and answers that follow from the page."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw

from duet_vlm.pages import words
from duet_vlm.pages.asking import PLACES, SKILLS, Question, ask, question_words
from duet_vlm.pages.kinds import KINDS, make_page
from duet_vlm.pages.paper import FACES, PAGE_SIZE, TEXT_SIZE, Box, Page, font
from duet_vlm.pages.splits import HELD_OUT_SEED, ORDER, VALIDATION_SEED, examples, page_at

PAGES = [(kind, number) for kind in KINDS for number in range(12)]
pages = pytest.mark.parametrize(("kind", "number"), PAGES)


def drawn(kind: str, number: int) -> tuple[Page, list[Question]]:
    rng = np.random.default_rng((3, number))
    page = make_page(rng, kind)
    return page, [question for question in ask(rng, page, SKILLS * 3) if question is not None]


def contrast(patch: np.ndarray) -> np.ndarray:
    patch = patch.astype(np.float64)
    return (patch - patch.mean()) / patch.std()


def read(page: Page, box: Box, among: set[str]) -> str:
    """Read what stands in a box by laying every text of its width over it, in every face."""
    left, top, right, bottom = box
    found = contrast(page.image[top:bottom, left:right].mean(-1))
    scores = {}
    for text in among:
        for face in FACES:
            if round(font(face).getlength(text)) != right - left:
                continue
            image = Image.new("L", (right - left, bottom - top), 255)
            ImageDraw.Draw(image).text((0, 0), text, fill=0, font=font(face))
            scores[text, face] = abs(float((contrast(np.asarray(image)) * found).mean()))
    return max(scores, key=lambda pair: scores[pair])[0]


@pages
def test_every_key_and_value_can_be_read_where_it_is_said_to_stand(kind: str, number: int) -> None:
    page, _ = drawn(kind, number)
    assert page.image.shape == (PAGE_SIZE, PAGE_SIZE, 3) and page.image.dtype == np.uint8
    # a box tells at most how wide a text is, so the digits are what is read
    numbers = {str(number) for number in np.random.default_rng(number).integers(10, 1600, 300)}
    numbers |= {value for entry in page.entries for value in entry.values}
    keys = {f"{word}:" if kind == "form" else word for word in words.words()}
    for entry in page.entries:
        assert len(entry.values) == len(entry.value_boxes) == len(page.heads)
        boxes = (entry.key_box, *entry.value_boxes)
        assert all(0 <= a < c <= PAGE_SIZE and 0 <= b < d <= PAGE_SIZE for a, b, c, d in boxes)
        assert all(bottom - top == TEXT_SIZE + 2 for _, top, _, bottom in boxes)
        assert read(page, entry.key_box, keys).rstrip(":") == entry.key
        assert [read(page, box, numbers) for box in entry.value_boxes] == list(entry.values)


@pages
def test_answers_follow_from_the_page(kind: str, number: int) -> None:
    page, questions = drawn(kind, number)
    lines = {entry.key: dict(zip(page.heads, entry.values, strict=True)) for entry in page.entries}
    said = {question.skill for question in questions}
    assert said == ({"place", "counting", "presence"} if kind == "screen" else set(SKILLS) - {"place"})
    for question in questions:
        text = question.text.split()
        keys = [word for word in text if word in lines]
        head = next((word for word in text if word in page.heads), "price")
        if question.skill == "value":
            expected = lines[keys[0]][head]
        elif question.skill == "key":
            value = next(word for word in text if word.isdigit())
            (expected,) = (key for key, line in lines.items() if line[head] == value)
        elif question.skill == "comparison":
            first, second = (int(lines[key][head]) for key in keys)
            if "compared" in text:  # to the first, is the second more?
                first, second = second, first
            expected = "yes" if (first < second if "less" in text else first > second) else "no"
        elif question.skill == "counting":
            expected = str(len(lines.keys() - {words.TOTAL}))
        elif question.skill == "presence":
            word = next(word for word in text if word in words.words() and word not in ("page",))
            expected = "yes" if word in lines else "no"
            assert word in page.words or word not in lines
        else:
            (entry,) = (entry for entry in page.entries if entry.key == keys[0])
            left, top, right, bottom = entry.key_box
            row = int(((top + bottom) / 2 - 18) // ((PAGE_SIZE - 18) / 3))
            expected = PLACES[3 * row + int((left + right) / 2 // (PAGE_SIZE / 3))]
        assert question.answer == expected, (question, lines)
        for word, box in question.mentions:
            assert word in text and box in {b for e in page.entries for b in (e.key_box, *e.value_boxes)}


def test_a_receipt_adds_up_and_values_are_apart() -> None:
    for number in range(50):
        page, _ = drawn("receipt", number)
        *prices, total = [int(entry.values[0]) for entry in page.entries]
        assert sum(prices) == total and page.entries[-1].key == words.TOTAL
        assert np.diff(sorted(prices)).min() >= 3


def test_answers_are_balanced_in_every_wording_of_yes_or_no() -> None:
    found: dict[str, Counter[str]] = {}
    places: Counter[str] = Counter()
    for index in range(1200):
        _, questions = page_at(VALIDATION_SEED, index)
        for question in questions:
            if question.skill in ("comparison", "presence"):
                # the wording is what is left without words of pages
                known = set(words.words())
                wording = " ".join("_" if word in known or word == "number" else word for word in question.text.split())
                found.setdefault(wording, Counter())[question.answer] += 1
            if question.skill == "place":
                places[question.answer] += 1
    common = {wording: counts for wording, counts in found.items() if counts.total() > 150}
    assert len(common) >= 6
    for wording, counts in common.items():
        assert 0.38 < counts["yes"] / counts.total() < 0.62, (wording, counts)
    assert set(places) == set(PLACES) and max(places.values()) < 2 * min(places.values())


def test_every_word_of_questions_and_answers_is_listed() -> None:
    known = {*words.words(), *question_words()}
    asked = [question for index in range(200) for question in page_at(VALIDATION_SEED, index)[1]]
    spoken = {word for question in asked for word in (*question.text.split(), question.answer)}
    assert {word for word in spoken if not word.isdigit()} <= known
    assert not set(question_words()) & set(words.words())


def test_equal_seeds_draw_equal_pages_and_splits_share_none() -> None:
    first, again = page_at(HELD_OUT_SEED, 5), page_at(HELD_OUT_SEED, 5)
    assert np.array_equal(first[0].image, again[0].image) and first[1] == again[1]
    images = [{page_at(seed, i)[0].image.tobytes() for i in range(30)} for seed in (HELD_OUT_SEED, VALIDATION_SEED)]
    assert len(images[0]) == len(images[1]) == 30 and not images[0] & images[1]
    assert [page_at(HELD_OUT_SEED, i)[0].kind for i in range(6)] == list(ORDER)


def test_every_skill_has_its_share() -> None:
    asked = [question.skill for _, questions in examples(VALIDATION_SEED, 62) for question in questions]
    assert Counter(asked) == {skill: 10 + (i < 2) for i, skill in enumerate(SKILLS)}
