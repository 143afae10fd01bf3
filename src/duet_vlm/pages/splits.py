"""Which pages are asked about: the held-out ones of published numbers, and others for decisions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from ..demo.evaluate import equal_shares
from .asking import SKILLS, Question, ask
from .kinds import make_page
from .paper import Page

HELD_OUT_SEED = 888_001  # pages for published numbers: never trained on, never tuned on
VALIDATION_SEED = 666_001  # pages for decisions during development
HELD_OUT_QUESTIONS = 2400
ORDER = ("screen", "receipt", "table", "screen", "form", "plot")  # one skill is asked about screens alone


def page_at(seed: int, index: int) -> tuple[Page, list[Question]]:
    """Page number `index` of a split, and one question of every skill that it allows."""
    rng = np.random.default_rng((seed, index))
    page = make_page(rng, ORDER[index % len(ORDER)])
    return page, [question for question in ask(rng, page) if question is not None]


def examples(seed: int, questions: int) -> Iterator[tuple[Page, list[Question]]]:
    """Pages of a split, in order, with their questions until every skill has its equal share of `questions`."""
    yield from equal_shares(partial(page_at, seed), SKILLS, questions)
