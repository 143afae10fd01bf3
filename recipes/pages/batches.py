"""Packed batches of pages: one image prefix, then many questions, each seeing the prefix and itself only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from duet_vlm.demo.vocabulary import ASSISTANT, BOS, EOS, USER
from duet_vlm.pages.asking import SKILLS, Question, ask
from duet_vlm.pages.kinds import make_page
from duet_vlm.pages.paper import Box, Page
from duet_vlm.pages.vocabulary import IDS, PAGE_WORDS, encode
from recipes.demo.batches import Collector, Rows
from recipes.demo.batches import visible as visible_mask
from recipes.demo.targets import pixels
from recipes.pages.targets import PATCHES, Targets, covered, targets

PREFIX = (IDS[BOS], IDS[USER])
QUESTION_TOKENS = 176  # per page; about 12 questions
_PAGE_IDS = frozenset(IDS[word] for word in PAGE_WORDS)
SKILL_SHARES = (0.34, 0.2, 0.1, 0.16, 0.08, 0.12)
# on all visual tokens: places, which screens alone have, were not learned from a tenth of the questions
WHOLE_SHARES = (0.4, 0.16, 0.5, 0.16, 0.06, 0.12)


@dataclass(frozen=True)
class Batch:
    """B pages with V of their patches each, and Q question tokens.

    `kept` [B, V]: which patches the language model sees.  `ids`, `position` (within the question) [B, Q]; `visible`
    [B, 1, Q, Q] additive.  `answers`: rows that predict a token of an answer or its end, goal = the token; `whose`
    [rows]: the question's number, `skill` [questions].
    Hints, rows whose goal is a mask [rows, V] over patches or [rows, Q] over question tokens: `words` (a word, or the
    last digit of a number -> patches that show it), `entries` (a key -> the patches of its numbers that are asked for),
    `nothing` (a word that is not on the page -> the prompt's first tokens), `sources` (what predicts the answer -> the
    patches that hold it), `phrases` (end of a mention -> what it must be read with: its digits, the head), `roles`
    (what predicts the answer -> end of mention 0 or 1).
    """

    pixels: Tensor
    targets: Targets
    kept: Tensor
    ids: Tensor
    position: Tensor
    visible: Tensor
    answers: Rows
    whose: np.ndarray
    skill: np.ndarray
    words: Rows
    entries: Rows
    nothing: Rows
    sources: Rows
    phrases: Rows
    roles: tuple[Rows, Rows]


def _pack(
    rng: np.random.Generator, page: Page, skill_shares: tuple[float, ...]
) -> list[tuple[Question, list[int], list[int]]]:
    """Different questions about a page with the tokens of question and answer, as many as fit."""
    shares = np.array(skill_shares) * [1, 1, page.kind == "screen", 1, 1, 1]
    skills = tuple(SKILLS[i] for i in rng.choice(len(SKILLS), 40, p=shares / shares.sum()))
    taken: dict[str, tuple[Question, list[int], list[int]]] = {}
    room = QUESTION_TOKENS
    for question in ask(rng, page, skills):
        if question is not None and question.text not in taken:
            tokens, answer = [*encode(question.text), IDS[ASSISTANT]], encode(question.answer)
            if len(tokens) + len(answer) <= room:
                taken[question.text] = question, tokens, answer
                room -= len(tokens) + len(answer)
    return list(taken.values())


def _keep(rng: np.random.Generator, pages: Sequence[Page], labels: Targets, count: int | None) -> np.ndarray:
    """[B, count] patches in image order: the middles of texts first, then other patches of texts, then any."""
    if count is None:
        return np.tile(np.arange(PATCHES), (len(pages), 1))
    rank = 2.0 * (labels.count > 0).numpy() + rng.random((len(pages), PATCHES))
    for b, page in enumerate(pages):
        for _, box in page.texts:
            there = np.flatnonzero(covered(box))
            rank[b, there[len(there) // 4 :: max(1, len(there) // 2)]] += 4
    return np.sort(np.argpartition(-rank, count - 1, 1)[:, :count], 1)


def _where(tokens: list[int], word: str) -> list[int]:
    """The places of a word's or number's tokens in a question."""
    wanted = encode(word)
    for i in range(len(tokens) - len(wanted) + 1):
        if tokens[i : i + len(wanted)] == wanted:
            return list(range(i, i + len(wanted)))
    return []


def make_batch(rng: np.random.Generator, pages_per_batch: int, visual_tokens: int | None) -> Batch:
    """Draw pages and questions and lay them out."""
    pages = [make_page(rng) for _ in range(pages_per_batch)]
    labels = targets(pages)
    kept = _keep(rng, pages, labels, visual_tokens)
    shape = (pages_per_batch, QUESTION_TOKENS)
    ids, position, segment = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1)
    names = ("answers", "words", "entries", "nothing", "sources", "phrases", "role0", "role1")
    rows = {name: Collector() for name in names}
    whose: list[int] = []
    skill: list[int] = []
    for b, page in enumerate(pages):
        seen = _seen(kept[b])
        start = 0
        for number, (question, tokens, answer) in enumerate(
            _pack(rng, page, WHOLE_SHARES if visual_tokens is None else SKILL_SHARES)
        ):
            end = start + len(tokens) + len(answer)
            ids[b, start:end], position[b, start:end] = [*tokens, *answer], range(end - start)
            segment[b, start:end] = number
            asking = range(start + len(tokens) - 1, end)
            for q, goal in zip(asking, [*answer, IDS[EOS]], strict=True):
                rows["answers"].add(b, q, goal)
                whose.append(len(skill))
            skill.append(SKILLS.index(question.skill))
            _hint(rows, b, start, asking, question, tokens, page, seen)
            start = end
    flat = {n: rows[n].rows(torch.bool, kept.shape[1]) for n in ("words", "entries", "sources")}
    text = {n: rows[n].rows(torch.bool, QUESTION_TOKENS) for n in ("phrases", "role0", "role1")}
    return Batch(
        pixels([page.image for page in pages]), labels, torch.from_numpy(kept), torch.from_numpy(ids),
        torch.from_numpy(position), visible_mask(segment), rows["answers"].rows(torch.long), np.array(whose),
        np.array(skill), flat["words"], flat["entries"], rows["nothing"].rows(torch.bool, len(PREFIX)),
        flat["sources"], text["phrases"], (text["role0"], text["role1"]),
    )  # fmt: skip


def _seen(kept: np.ndarray) -> Callable[[Sequence[Box]], np.ndarray]:
    def mask(boxes: Sequence[Box]) -> np.ndarray:
        there = np.zeros(PATCHES, bool)
        for box in boxes:
            there |= covered(box)
        return there[kept]

    return mask


def _hint(
    rows: dict[str, Collector], b: int, start: int, asking: range, question: Question, tokens: list[int], page: Page,
    seen: Callable[[Sequence[Box]], np.ndarray],
) -> None:  # fmt: skip
    """The hints of one question."""
    source = seen(question.sources)
    ends = []
    for word, box in question.mentions:
        places = [start + i for i in _where(tokens, word)]
        ends.append(places[-1])
        if (there := seen([box])).any():
            rows["words"].add(b, places[-1], there)
        with_it = [start + i for head in page.heads for i in _where(tokens, head)]
        if len(places) > 1 or with_it:
            rows["phrases"].add(b, places[-1], _span([*places[:-1], *with_it] or places))
    for end, own in zip(ends, question.sources, strict=False):
        if question.skill in ("value", "comparison", "key") and (there := seen([own])).any():
            rows["entries"].add(b, end, there)
    if question.skill == "presence" and not question.mentions:
        absent = next(i for i, token in enumerate(tokens) if token in _PAGE_IDS)
        rows["nothing"].add(b, start + absent, np.ones(len(PREFIX), bool))
        ends.append(start + absent)
    for q in asking[:-1]:
        if source.any():
            rows["sources"].add(b, q, source)
        for role, end in enumerate(ends):
            rows[f"role{role}"].add(b, q, _span([end]))


def _span(places: Sequence[int]) -> np.ndarray:
    mask = np.zeros(QUESTION_TOKENS, bool)
    mask[list(places)] = True
    return mask
