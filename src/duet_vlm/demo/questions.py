"""Questions about a scene: nine skills, several wordings each, single-word answers, balanced answers.

Each question records its mentions (the word at which a reference is complete, and the objects it refers to) and the
objects the answer is read from; the warm-up stage of the training derives its attention hints from these alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duet_vlm.demo.scenes import BACKGROUNDS, COLORS, DIGITS, IMAGE_SIZE, SHAPES, Scene, SceneObject

SKILLS = ("existence", "color", "shape", "counting", "relation", "comparison", "reading", "location", "background")
PLURALS = tuple(f"{s}es" if s == "cross" else f"{s}s" for s in SHAPES)
LOCATIONS = ("top-left", "top-right", "bottom-left", "bottom-right")
COUNTS = DIGITS[:5]
RELATIONS = ("left of", "right of", "above", "below")
BIGGER, SMALLER = ("bigger", "larger"), ("smaller",)

RELATION_MARGIN = 12.0  # pixels between the two centres along the axis asked about
SIZE_MARGIN = 4  # pixels between the two box sides
LOCATION_MARGIN = 5.0  # pixels between the centre and either middle line

WORDINGS: dict[str, tuple[str, ...]] = {
    "existence": (
        "is there a {a} ?", "do you see a {a} in the picture ?", "a {a} , is there one ?",
        "look for a {a} , can you find one ?", "in this picture , does a {a} appear ?",
    ),
    "color": (
        "what color is the {a} ?", "the {a} has which color ?", "which color does the {a} have ?",
        "look at the {a} , what color is it ?", "tell me the color of the {a} .",
    ),
    "shape": (
        "what shape is the {a} ?", "the {a} has which shape ?", "which shape does the {a} have ?",
        "look at the {a} , what shape is it ?", "tell me the shape of the {a} .",
    ),
    "counting": (
        "how many {a} are there ?", "count the {a} .", "the {a} , how many do you see ?",
        "what is the number of {a} in the picture ?", "in this picture , how many {a} appear ?",
    ),
    "relation": (
        "is the {a} {r} the {b} ?", "does the {a} lie {r} the {b} ?", "the {a} is {r} the {b} , true ?",
        "{r} the {b} , do you see the {a} ?", "look at the {a} , is it {r} the {b} ?",
    ),
    "comparison": (
        "is the {a} {r} than the {b} ?", "does the {a} look {r} than the {b} ?", "the {a} is {r} than the {b} , true ?",
        "compared to the {b} , is the {a} {r} ?", "look at the {a} , is it {r} than the {b} ?",
    ),
    "reading": (
        "what number is on the {a} ?", "which digit does the {a} show ?", "the {a} has what number on it ?",
        "read the number on the {a} .", "look at the {a} , which digit is on it ?",
    ),
    "location": (
        "where is the {a} ?", "in which corner is the {a} ?", "the {a} is in which part of the picture ?",
        "find the {a} .", "look for the {a} , where is it ?",
    ),
    "background": (
        "what is the background pattern ?", "which pattern does the background have ?",
        "the background has what pattern ?", "behind the objects , what pattern do you see ?",
    ),
}  # fmt: skip
_PHRASES = ("{c} {s}", "{s} in {c}", "{c} object", "{c} objects", "object with number {d}")


@dataclass(frozen=True, slots=True)
class Mention:
    """A reference: the indices of its first and last word in the question, and what it refers to (maybe nothing).

    `role` is 0, or 1 for the second object of a relation or comparison.
    """

    first: int
    last: int
    objects: tuple[int, ...]
    role: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """One question, its single-word answer, its mentions, and the objects the answer is read from."""

    skill: str
    wording: int
    text: str
    answer: str
    mentions: tuple[Mention, ...]
    sources: tuple[int, ...]


_Parts = tuple[dict[str, tuple[str, tuple[int, ...]]], str, str, tuple[int, ...]]  # phrases, {r}, answer, sources


class _Asker:
    """What all questions about one scene need to know."""

    def __init__(self, rng: np.random.Generator, scene: Scene) -> None:
        self.rng, self.scene, self.objects = rng, scene, scene.objects
        self.by_shape = _group(o.shape for o in self.objects)
        self.by_color = _group(o.color for o in self.objects)
        self.by_pair = _group((o.shape, o.color) for o in self.objects)
        self.by_digit = _group(o.digit for o in self.objects if o.digit is not None)
        if self.by_digit:
            self.by_digit = {d: tuple(i for i, o in enumerate(self.objects) if o.digit == d) for d in self.by_digit}
        self.unique = [i[0] for i in self.by_pair.values() if len(i) == 1]

    def pick(self, items):  # type: ignore[no-untyped-def]
        """One of a sequence, or None of an empty one."""
        return items[int(self.rng.integers(0, len(items)))] if len(items) else None

    def pair_phrase(self, shape: int, color: int) -> str:
        """ "red circle" or "circle in red"."""
        phrase = _PHRASES[0] if self.rng.random() < 0.75 else _PHRASES[1]
        return phrase.format(c=COLORS[color], s=SHAPES[shape])

    def refer(self, i: int, digits: bool = False) -> tuple[str, tuple[int, ...]]:
        """A phrase that fits object i alone: mostly colour and shape, sometimes one of them (or its digit)."""
        o = self.objects[i]
        if self.rng.random() < 0.3:
            options = [SHAPES[o.shape]] if len(self.by_shape[o.shape]) == 1 else []
            options += [_PHRASES[2].format(c=COLORS[o.color])] if len(self.by_color[o.color]) == 1 else []
            if digits and o.digit is not None and len(self.by_digit[o.digit]) == 1:
                options.append(_PHRASES[4].format(d=DIGITS[o.digit]))
            if options:
                return self.pick(options), (i,)
        return self.pair_phrase(o.shape, o.color), (i,)

    def existence(self) -> _Parts | None:
        if self.rng.random() < 0.5:
            o = self.pick(self.objects)
            chosen = self.by_pair[o.shape, o.color]
            return {"a": (self.pair_phrase(o.shape, o.color), chosen)}, "", "yes", chosen
        for _ in range(30):  # a colour and a shape that are both there, but on different objects
            shape, color = self.pick(self.objects).shape, self.pick(self.objects).color
            if (shape, color) not in self.by_pair:
                return {"a": (self.pair_phrase(shape, color), ())}, "", "no", ()
        return None

    def _attribute(self, groups: dict[int, tuple[int, ...]], name: Callable[[int], str]) -> int | None:
        """An object that `groups` or its digit singles out, as (object, phrase) in self.found."""
        singles = [(i[0], name(k)) for k, i in groups.items() if len(i) == 1]
        digits = [(i[0], _PHRASES[4].format(d=DIGITS[k])) for k, i in self.by_digit.items() if len(i) == 1]
        options = digits if digits and (not singles or self.rng.random() < 0.4) else singles
        self.chosen = self.pick(options)
        return None if self.chosen is None else self.chosen[0]

    def color(self) -> _Parts | None:
        i = self._attribute(self.by_shape, lambda k: SHAPES[k])
        return None if i is None else ({"a": (self.chosen[1], (i,))}, "", COLORS[self.objects[i].color], (i,))

    def shape(self) -> _Parts | None:
        i = self._attribute(self.by_color, lambda k: _PHRASES[2].format(c=COLORS[k]))
        return None if i is None else ({"a": (self.chosen[1], (i,))}, "", SHAPES[self.objects[i].shape], (i,))

    def counting(self) -> _Parts | None:
        goal = int(self.rng.integers(0, len(COUNTS)))
        kinds = [(self.by_shape, PLURALS), (self.by_color, tuple(_PHRASES[3].format(c=c) for c in COLORS))]
        if self.rng.random() < 0.5:
            kinds.reverse()
        for groups, names in kinds:
            options = [k for k in range(len(names)) if len(groups.get(k, ())) == goal]
            if options:
                k = self.pick(options)
                return {"a": (names[k], groups.get(k, ()))}, "", COUNTS[goal], groups.get(k, ())
        return None

    def _two(self, fits: Callable[[SceneObject, SceneObject], bool]) -> tuple[int, int] | None:
        pairs = [(i, j) for i in self.unique for j in self.unique if i != j and fits(self.objects[i], self.objects[j])]
        return self.pick(pairs)

    def relation(self) -> _Parts | None:
        way, truth = int(self.rng.integers(0, 4)), bool(self.rng.random() < 0.5)
        axis, sign = way // 2, (1 if way % 2 == 0 else -1) * (1 if truth else -1)
        chosen = self._two(lambda o, p: sign * (p.center[axis] - o.center[axis]) >= RELATION_MARGIN)
        return None if chosen is None else self._ask_two(chosen, RELATIONS[way], truth)

    def comparison(self) -> _Parts | None:
        grow, truth = bool(self.rng.random() < 0.5), bool(self.rng.random() < 0.5)
        sign = 1 if grow == truth else -1
        chosen = self._two(lambda o, p: sign * (o.size - p.size) >= SIZE_MARGIN)
        return None if chosen is None else self._ask_two(chosen, self.pick(BIGGER if grow else SMALLER), truth)

    def _ask_two(self, chosen: tuple[int, int], word: str, truth: bool) -> _Parts:
        phrases = {"a": self.refer(chosen[0]), "b": self.refer(chosen[1])}
        return phrases, word, "yes" if truth else "no", chosen

    def reading(self) -> _Parts | None:
        i = self.pick([i for i in self.unique if self.objects[i].digit is not None])
        return None if i is None else ({"a": self.refer(i)}, "", DIGITS[self.objects[i].digit or 0], (i,))

    def location(self) -> _Parts | None:
        half = IMAGE_SIZE / 2
        clear = [i for i in self.unique if min(abs(c - half) for c in self.objects[i].center) >= LOCATION_MARGIN]
        i = self.pick(clear)
        if i is None:
            return None
        x, y = self.objects[i].center
        return {"a": self.refer(i, digits=True)}, "", LOCATIONS[2 * (y > half) + (x > half)], (i,)

    def background(self) -> _Parts | None:
        return {}, "", BACKGROUNDS[self.scene.background], ()


def _group(keys):  # type: ignore[no-untyped-def]
    groups: dict[object, tuple[int, ...]] = {}
    for i, key in enumerate(keys):
        groups[key] = (*groups.get(key, ()), i)
    return groups


def _render(skill: str, wording: int, parts: _Parts) -> Question:
    phrases, relation, answer, sources = parts
    words: list[str] = []
    mentions = []
    for piece in WORDINGS[skill][wording].split():
        if piece in ("{a}", "{b}"):
            phrase, objects = phrases[piece[1]]
            if phrase.startswith("orange") and words and words[-1] == "a":
                words[-1] = "an"
            first = len(words)
            words += phrase.split()
            mentions.append(Mention(first, len(words) - 1, objects, role=int(piece == "{b}")))
        else:
            words += (relation if piece == "{r}" else piece).split()
    return Question(skill, wording, " ".join(words), answer, tuple(mentions), sources)


def ask(rng: np.random.Generator, scene: Scene, skills: tuple[str, ...]) -> list[Question | None]:
    """One question per entry of `skills`, in a random wording; None where the scene allows none."""
    asker = _Asker(rng, scene)
    questions: list[Question | None] = []
    for skill in skills:
        parts = getattr(asker, skill)()
        wording = int(rng.integers(0, len(WORDINGS[skill])))
        questions.append(None if parts is None else _render(skill, wording, parts))
    return questions


def question_words() -> tuple[str, ...]:
    """Every word the wordings can produce that is no colour, shape, digit, pattern or location, sorted."""
    texts = [w for wordings in WORDINGS.values() for w in wordings]
    texts += [*_PHRASES, *RELATIONS, *BIGGER, *SMALLER, "an", "yes", "no"]
    known = {*COLORS, *SHAPES, *PLURALS, *DIGITS, *BACKGROUNDS, *LOCATIONS}
    return tuple(sorted({w for t in texts for w in t.split() if "{" not in w} - known))
