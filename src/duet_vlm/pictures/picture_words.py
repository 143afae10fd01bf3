"""The words of a prompt as a picture shows them."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Any

WORD = r"[^\s?.,!:;]+|[?.,!:;]"


def words_of(ids: list[int], queries: list[int], start: int, tokenizer: Any) -> list[tuple[str, str]]:
    """The prompt's words from place `start` on, each "salient", "last" (the last token) or "plain"."""
    from ..stage2.words import token_spans

    text, spans = token_spans(ids[start:], tokenizer)
    kinds = [""] * len(text)
    for place in queries:
        if place >= start:
            first, end = spans[place - start]
            kinds[first:end] = ["last" if place == len(ids) - 1 else "salient"] * (end - first)
    words, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        inside = set(kinds[at : at + len(word)])
        words.append((word, "salient" if "salient" in inside else "last" if "last" in inside else "plain"))
        at += len(word)
    return words


def as_written(words: list[tuple[str, str]], question: str, unknown: str | None) -> list[tuple[str, str]]:
    """The words with the user's own in place of the unknown token."""
    if not unknown or not any(unknown in word for word, _ in words):
        return words
    own = re.findall(WORD, question)
    mine = [word for whole, _ in words for word in re.findall(WORD, whole)]
    said, taken = SequenceMatcher(None, [w.lower() for w in mine], [w.lower() for w in own], autojunk=False), list(mine)
    for kind, a, b, c, d in said.get_opcodes():
        if kind == "replace" and b - a == d - c:
            taken[a:b] = own[c:d]
    replaced = iter([new for old, new in zip(mine, taken, strict=True) if unknown in old])
    return [(re.sub(re.escape(unknown), lambda _: next(replaced), word), kind) for word, kind in words]
