"""Packed batches: one image prefix per scene, then many questions, each seeing the prefix and itself only.

Position ids restart at every question, so each is computed as in the single-turn format, at a fraction of its cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from duet_vlm.demo.questions import PLURALS, SKILLS, Question, ask
from duet_vlm.demo.scenes import COLORS, DIGITS, GRID, SHAPES, PatchLabels, Scene, make_scene, patch_labels
from duet_vlm.demo.vocabulary import ASSISTANT, BOS, IDS, USER, encode_question
from recipes.demo.targets import Targets, object_places, pixels, targets

PREFIX = (IDS[BOS], IDS[USER])
QUESTION_TOKENS = 164  # per scene; about 14 questions
SKILL_SHARES = (0.12, 0.09, 0.09, 0.17, 0.18, 0.14, 0.11, 0.07, 0.03)
_MASKED = -1e4


@dataclass(frozen=True)
class Rows:
    """Question tokens by scene `b` and token index `q`, with one goal per row."""

    b: Tensor
    q: Tensor
    goal: Tensor

    def __len__(self) -> int:
        return len(self.b)


@dataclass(frozen=True)
class Batch:
    """B scenes with V of their patches each, and Q question tokens.

    `kept` [B, V]: which patches the language model sees.  `owner` [B, 196]: object that each patch shows, or -1.
    `ids`, `position` (within the question) [B, Q]; `visible` [B, 1, Q, Q] additive.  `answers`: rows of "ASSISTANT:",
    goal = answer id; `skill`: their skills.
    Hints, rows whose goal is a mask [rows, V] over patches or [rows, Q] over question tokens: `words` (colour, shape
    and digit words -> patches that show it), `mentions` (-> the objects' patches), `nothing` (a mention that fits no
    object -> the prompt's first tokens), `sources` ("ASSISTANT:" -> the patches that hold the answer), `phrases` (end
    of a mention -> its words), `roles` ("ASSISTANT:" -> end of mention 0 or 1).  `tally`: ends of mentions to be
    counted, goal [rows, 2 + V]: equal shares for the first token and each counted object's centre, so that the first
    token's share tells the number.
    Read-outs: `places` (mention -> x, y, size), `counts` (mention -> objects, 0 to 5), `differences` ("ASSISTANT:" ->
    difference in x, y, size of the two mentioned objects).
    """

    pixels: Tensor
    targets: Targets
    kept: Tensor
    owner: Tensor
    ids: Tensor
    position: Tensor
    visible: Tensor
    answers: Rows
    skill: np.ndarray
    words: Rows
    mentions: Rows
    nothing: Rows
    sources: Rows
    phrases: Rows
    roles: tuple[Rows, Rows]
    tally: Rows
    places: Rows
    counts: Rows
    differences: Rows


_WORD_KIND = {IDS[w]: (kind, i) for kind, names in enumerate((COLORS, SHAPES, PLURALS, DIGITS))
              for i, w in enumerate(names)}  # fmt: skip


def _pack(rng: np.random.Generator, scene: Scene) -> list[Question]:
    """Different questions about a scene, as many as fit."""
    skills = tuple(SKILLS[i] for i in rng.choice(len(SKILLS), 30, p=SKILL_SHARES))
    taken: dict[str, Question] = {}
    room = QUESTION_TOKENS
    for question in ask(rng, scene, skills):
        if question is not None and question.text not in taken:
            length = len(question.text.split()) + 2
            if length <= room:
                taken[question.text], room = question, room - length
    return list(taken.values())


def _keep(rng: np.random.Generator, labels: Sequence[PatchLabels], count: int) -> np.ndarray:
    """[B, count] patches in image order: object centres first, then digits, then others at random."""
    if count == GRID * GRID:
        return np.tile(np.arange(count), (len(labels), 1))
    rank = np.stack([4.0 * (x.center >= 0) + 2.0 * (x.digit >= 0) for x in labels]) + rng.random((len(labels), 196))
    return np.sort(np.argpartition(-rank, count - 1, 1)[:, :count], 1)


class Collector:
    """Rows while they are being collected."""

    def __init__(self) -> None:
        self.b: list[int] = []
        self.q: list[int] = []
        self.goal: list[object] = []

    def add(self, b: int, q: int, goal: object) -> None:
        self.b.append(b)
        self.q.append(q)
        self.goal.append(goal)

    def rows(self, dtype: torch.dtype, *shape: int) -> Rows:
        goal = np.array(self.goal) if self.goal else np.zeros((0, *shape))
        return Rows(torch.tensor(self.b, dtype=torch.long), torch.tensor(self.q, dtype=torch.long),
                    torch.from_numpy(goal).to(dtype))  # fmt: skip


def make_batch(rng: np.random.Generator, scenes_per_batch: int, visual_tokens: int) -> Batch:
    """Draw scenes and questions and lay them out."""
    scenes = [make_scene(rng) for _ in range(scenes_per_batch)]
    labels = [patch_labels(s) for s in scenes]
    kept = _keep(rng, labels, visual_tokens)
    shape = (scenes_per_batch, QUESTION_TOKENS)
    ids, position, segment = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1)
    names = (
        "answers",
        "words",
        "mentions",
        "nothing",
        "sources",
        "phrases",
        "role0",
        "role1",
        "tally",
        "places",
        "counts",
        "differences",
    )
    rows = {name: Collector() for name in names}
    skill: list[int] = []
    for b, (scene, label) in enumerate(zip(scenes, labels, strict=True)):
        owner, center, digit = label.owner[kept[b]], label.center[kept[b]], label.digit[kept[b]]
        colors = np.array([o.color for o in scene.objects] + [-1])[owner]  # owner -1 reads the last entry
        shapes = np.array([o.shape for o in scene.objects] + [-1])[owner]
        places, start = object_places(scene), 0
        for number, question in enumerate(_pack(rng, scene)):
            tokens = [*encode_question(question.text), IDS[ASSISTANT], IDS[question.answer]]
            end = start + len(tokens)
            ids[b, start:end], position[b, start:end], segment[b, start:end] = tokens, range(len(tokens)), number
            ask_at = end - 2
            rows["answers"].add(b, ask_at, tokens[-1])
            skill.append(SKILLS.index(question.skill))
            for i, token in enumerate(tokens[:-2]):
                if token in _WORD_KIND:
                    kind, value = _WORD_KIND[token]
                    mask = (colors, shapes, shapes, digit)[kind] == value
                    if mask.any():
                        rows["words"].add(b, start + i, mask)
            for m in question.mentions:
                last = start + m.last
                where = center if question.skill == "counting" else owner
                mask = np.isin(where, m.objects)
                if mask.any():
                    rows["mentions"].add(b, last, mask)
                if question.skill == "counting":
                    shares = np.concatenate([[1.0, 0.0], mask])
                    rows["tally"].add(b, last, shares / shares.sum())
                if not m.objects:
                    rows["nothing"].add(b, last, np.ones(len(PREFIX), bool))
                if m.last > m.first:
                    rows["phrases"].add(b, last, _span(start + m.first, last))
                rows[f"role{m.role}"].add(b, ask_at, _span(last, last + 1))
                rows["counts"].add(b, last, min(len(m.objects), 5))
                if len(m.objects) == 1:
                    rows["places"].add(b, last, places[m.objects[0]])
            read = digit >= 0 if question.skill == "reading" else owner >= 0
            mask = np.isin(owner if question.skill != "counting" else center, question.sources) & read
            if mask.any():
                rows["sources"].add(b, ask_at, mask)
            if len(question.mentions) == 2:
                rows["differences"].add(b, ask_at, places[question.sources[0]] - places[question.sources[1]])
            start = end
    flat = {n: rows[n].rows(torch.bool, visual_tokens) for n in ("words", "mentions", "sources")}
    text = {n: rows[n].rows(torch.bool, QUESTION_TOKENS) for n in ("phrases", "role0", "role1")}
    return Batch(
        pixels([s.image for s in scenes]), targets(scenes, labels), torch.from_numpy(kept),
        torch.from_numpy(np.stack([label.owner for label in labels])), torch.from_numpy(ids),
        torch.from_numpy(position), visible(segment), rows["answers"].rows(torch.long), np.array(skill), flat["words"],
        flat["mentions"], rows["nothing"].rows(torch.bool, len(PREFIX)), flat["sources"], text["phrases"],
        (text["role0"], text["role1"]), rows["tally"].rows(torch.float32, 2 + visual_tokens),
        rows["places"].rows(torch.float32, 3), rows["counts"].rows(torch.long),
        rows["differences"].rows(torch.float32, 3),
    )  # fmt: skip


def visible(segment: np.ndarray) -> Tensor:
    """Additive [B, 1, Q, Q] mask: a token sees what comes before it in its own question.

    segment [B, Q]: the number of each token's question, -1 for none.
    """
    same = (segment[:, :, None] == segment[:, None]) & np.tri(segment.shape[1], dtype=bool)
    return torch.zeros(same.shape, dtype=torch.bfloat16).masked_fill_(torch.from_numpy(~same), _MASKED)[:, None]


def _span(first: int, end: int) -> np.ndarray:
    mask = np.zeros(QUESTION_TOKENS, bool)
    mask[first:end] = True
    return mask


def causal_mask(length: int) -> Tensor:
    """Additive [length, length] mask of the prefix."""
    return torch.zeros(length, length, dtype=torch.bfloat16).masked_fill_(
        ~torch.ones(length, length, dtype=torch.bool).tril(), _MASKED
    )
