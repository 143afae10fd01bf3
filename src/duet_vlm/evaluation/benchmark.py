"""The built-in benchmarks: held-out drawn pictures, and an equal number of questions per skill."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from ..demo import evaluate as scenes
from ..demo.questions import SKILLS as SCENE_SKILLS
from ..errors import DuetError
from ..inputs.model_folders import DEMO, PAGES
from ..pages import splits as pages
from ..pages.asking import SKILLS as PAGE_SKILLS
from .records import Record


@dataclass(frozen=True)
class Suite:
    """A built-in benchmark.

    Attributes:
        skills: the categories of its questions.
        questions: how many there are.
        drawn: () -> (what has an `image`, questions with `skill`, `text` and `answer`), in order.
        hash: SHA-256 of all pixels, questions and answers; `make_records` refuses to ask anything else.
    """

    skills: tuple[str, ...]
    questions: int
    drawn: Callable[[], Iterator[tuple[Any, list[Any]]]]
    hash: str


SUITES = {
    DEMO: Suite(
        SCENE_SKILLS, scenes.HELD_OUT_QUESTIONS,
        partial(scenes.examples, scenes.HELD_OUT_SEED, scenes.HELD_OUT_QUESTIONS),
        "c7592510c3514a3f6580a32f5ad9544321e05785efdf2daef0b40af7c03bee7b",
    ),
    PAGES: Suite(
        PAGE_SKILLS, pages.HELD_OUT_QUESTIONS,
        partial(pages.examples, pages.HELD_OUT_SEED, pages.HELD_OUT_QUESTIONS),
        "34caee6985b42bbe71b3dcc565ca69448e8358ced5332b051541da2deb57fb84",
    ),
}  # fmt: skip


def make_records(limit: int | None = None, name: str = DEMO) -> list[Record]:
    """The records of a benchmark of `SUITES`, or the first `limit` of them that give every skill its equal share.

    Everything is drawn and compared with the suite's hash first, which takes seconds.

    Raises:
        ValueError: what is drawn here is not the published benchmark, or a limit beyond it.
    """
    suite = SUITES[name]
    if limit is not None and not len(suite.skills) <= limit <= suite.questions:
        raise DuetError(f"limit {limit} must be {len(suite.skills)}, a question per skill, to {suite.questions}.")
    digest = hashlib.sha256()
    records = []
    for number, (picture, questions) in enumerate(suite.drawn()):
        digest.update(picture.image.tobytes())
        image = Image.fromarray(picture.image)
        for question in questions:
            digest.update(f"{question.skill}\t{question.text}\t{question.answer}\n".encode())
            source = f"{number:03d}"
            records.append(
                Record(
                    f"{source}-{question.skill}", question.text, (question.answer,), image, None, source, question.skill
                )
            )
    found = digest.hexdigest()
    if found != suite.hash:
        raise DuetError(
            f"what is drawn here is not the published benchmark (SHA-256 {found[:12]}, not {suite.hash[:12]}): "
            "use the versions of numpy, Pillow and matplotlib in constraints.txt."
        )
    return records if limit is None else first_of_each(records, suite.skills, limit)


def first_of_each(records: list[Record], skills: tuple[str, ...], limit: int) -> list[Record]:
    """The first `limit` records, in order, in which every skill has an equal share (earlier skills get the rest)."""
    share = Counter({skill: limit // len(skills) + (i < limit % len(skills)) for i, skill in enumerate(skills)})
    chosen = []
    for record in records:
        if share[record.category]:
            share[record.category] -= 1
            chosen.append(record)
    return chosen
