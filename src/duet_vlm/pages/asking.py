"""Questions about a page: six skills, several wordings each, answers of one word or one number, balanced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import words
from .kinds import cell_of
from .paper import Box, Entry, Page

SKILLS = ("value", "key", "place", "comparison", "counting", "presence")
PLACES = tuple(
    "center" if (row, column) == ("middle", "center") else f"{row}-{column}"
    for row in ("top", "middle", "bottom")
    for column in ("left", "center", "right")
)
COUNTED = {"receipt": "items", "table": "rows", "form": "fields", "plot": "bars", "screen": "buttons"}
WORDINGS: dict[str, tuple[str, ...]] = {
    "value": (
        "what is the {h} of {k} ?", "read the {h} of {k} .", "the {h} of {k} is what ?", "which {h} does {k} have ?",
    ),
    "total": ("what is the total ?", "read the total .", "the total is what ?"),
    "key": ("what has the {h} {v} ?", "find the {h} {v} , what is it of ?", "the {h} {v} is of what ?"),
    "place": ("where is {k} ?", "find {k} .", "in which part of the screen is {k} ?"),
    "comparison": (
        "is the {h} of {k} more than of {l} ?", "is the {h} of {l} less than of {k} ?",
        "compared to {l} , is the {h} of {k} more ?",
    ),
    "counting": ("how many {n} are there ?", "count the {n} .", "what is the number of {n} ?"),
    "presence": ("is {k} on the page ?", "do you see {k} ?", "does the page say {k} ?"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a page.

    Attributes:
        skill: one of `SKILLS`.
        text: of the question, words and marks apart.
        answer: one word, or a number in digits.
        mentions: (word or number of the question, where it stands on the page); none for what does not stand there.
        sources: where the answer is read; empty where it stands nowhere.
    """

    skill: str
    text: str
    answer: str
    mentions: tuple[tuple[str, Box], ...]
    sources: tuple[Box, ...]


class _Asker:
    def __init__(self, rng: np.random.Generator, page: Page):
        self.rng, self.page = rng, page
        self.entries = [entry for entry in page.entries if entry.key != words.TOTAL]

    def _one(self) -> Entry:
        return self.entries[int(self.rng.integers(0, len(self.entries)))]

    def _ask(
        self, skill: str, answer: str, mentions: list[tuple[str, Box]], sources: list[Box], **parts: str
    ) -> Question:
        wordings = WORDINGS["total" if parts.get("k") == words.TOTAL else skill]
        text = wordings[int(self.rng.integers(0, len(wordings)))].format(**parts)
        return Question(skill, text, answer, tuple(mentions), tuple(sources))

    def value(self) -> Question | None:
        if not self.page.heads:
            return None
        # the total, too
        entry = self.page.entries[int(self.rng.integers(0, len(self.page.entries)))]
        column = int(self.rng.integers(0, len(self.page.heads)))
        return self._ask(
            "value", entry.values[column], [(entry.key, entry.key_box)], [entry.value_boxes[column]],
            k=entry.key, h=self.page.heads[column],
        )  # fmt: skip

    def key(self) -> Question | None:
        if not self.page.heads:
            return None
        column = int(self.rng.integers(0, len(self.page.heads)))
        entry = self._one()
        value = entry.values[column]
        if sum(other.values[column] == value for other in self.entries) > 1:
            return None
        return self._ask(
            "key", entry.key, [(value, entry.value_boxes[column])], [entry.key_box], h=self.page.heads[column], v=value
        )

    def place(self) -> Question | None:
        if self.page.kind != "screen":
            return None
        entry = self._one()
        row, column = cell_of(entry)
        return self._ask("place", PLACES[3 * row + column], [(entry.key, entry.key_box)], [entry.key_box], k=entry.key)

    def comparison(self) -> Question | None:
        if not self.page.heads:
            return None
        column = int(self.rng.integers(0, len(self.page.heads)))
        first, second = self.rng.permutation(len(self.entries))[:2]
        pair = sorted((self.entries[first], self.entries[second]), key=lambda entry: int(entry.values[column]))
        true = bool(self.rng.random() < 0.5)
        less, more = pair if true else pair[::-1]  # {k} has more, {l} has less, or the other way round
        return self._ask(
            "comparison", "yes" if true else "no", [(entry.key, entry.key_box) for entry in (more, less)],
            [entry.value_boxes[column] for entry in (more, less)], k=more.key, l=less.key, h=self.page.heads[column],
        )  # fmt: skip

    def counting(self) -> Question | None:
        boxes = [entry.key_box for entry in self.entries]
        return self._ask("counting", str(len(boxes)), [], boxes, n=COUNTED[self.page.kind])

    def presence(self) -> Question | None:
        if self.rng.random() < 0.5:
            entry = self._one()
            return self._ask("presence", "yes", [(entry.key, entry.key_box)], [entry.key_box], k=entry.key)
        kind = {"form": words.LABELS, "screen": words.ACTIONS}.get(self.page.kind, words.ITEMS)
        absent = [word for word in kind if word not in self.page.words]
        return self._ask("presence", "no", [], [], k=absent[int(self.rng.integers(0, len(absent)))])


def ask(rng: np.random.Generator, page: Page, skills: tuple[str, ...] = SKILLS) -> list[Question | None]:
    """One question per entry of `skills`, in a random wording; None where the page allows none."""
    asker = _Asker(rng, page)
    asking: dict[str, Callable[[], Question | None]] = {skill: getattr(asker, skill) for skill in SKILLS}
    return [asking[skill]() for skill in skills]


def question_words() -> tuple[str, ...]:
    """Every word of the wordings and answers, sorted; but for "total" none of them stands on a page."""
    texts = [text for wordings in WORDINGS.values() for text in wordings]
    texts += [*COUNTED.values(), *PLACES, "number", "value", "yes", "no"]
    return tuple(sorted({word for text in texts for word in text.split() if "{" not in word} - {words.TOTAL}))
