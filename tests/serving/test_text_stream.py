"""The text of a stream against what all tokens give, decoded at once and cut at the first stop text."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from duet_vlm.serving.text_stream import Ends, TextStream

# a token stands for bytes, so that one may end within a character
TOKENS = [b"a", b"ab", b"b", b" ", b"ba ", b"\xc3", b"\xa4", "ä".encode(), b"", "€".encode()[:2], "€".encode()[2:]]


def decode(tokens: list[int]) -> str:
    return b"".join(TOKENS[token] for token in tokens).decode(errors="replace")


def cut(tokens: list[int], stops: tuple[str, ...]) -> tuple[str, int]:
    """The answer, and how many tokens it takes: up to the first after which a stop text is there."""
    for count in range(1, len(tokens) + 1):
        text = decode(tokens[:count])
        found = [text.index(stop) for stop in stops if stop in text]
        if found:
            return text[: min(found)], count
    return decode(tokens), len(tokens)


stops = st.lists(st.text("ab ä€", min_size=1, max_size=4), max_size=3).map(tuple)


@given(tokens=st.lists(st.integers(0, len(TOKENS) - 1), min_size=1, max_size=20), stops=stops)
def test_pieces_make_the_answer(tokens: list[int], stops: tuple[str, ...]) -> None:
    pieces = list[str]()
    stream = TextStream(decode, stops, pieces.append)
    ends = Ends(stream, lambda: False)
    stream.put(torch.tensor([[1, 2, 3]]))  # the prompt
    for token in tokens:
        stream.put(torch.tensor([token]))
        if bool(ends(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1))):
            break
    stream.end()
    text, count = cut(tokens, stops)
    assert len(stream.tokens) == count
    assert stream.stopped == any(stop in decode(tokens[:count]) for stop in stops)
    assert "".join(pieces) == stream.text == text
    assert all(pieces)


def test_nothing_is_held_back_without_need() -> None:
    pieces = list[str]()
    stream = TextStream(decode, ("bab",), pieces.append)
    for token in ([0], [1], [0], [7], [5]):  # the prompt, "ab", "a", "ä" and half of one
        stream.put(torch.tensor(token))
    assert pieces == ["a", "baä"]
    stream.end()
    assert pieces == ["a", "baä", "\ufffd"]


def test_an_answer_that_nobody_waits_for_ends() -> None:
    stream = TextStream(decode, (), print)
    ids = torch.zeros(2, 3, dtype=torch.long)
    assert Ends(stream, lambda: True)(ids, torch.zeros(2, 5)).tolist() == [True, True]
    assert Ends(stream, lambda: False)(ids, torch.zeros(2, 5)).tolist() == [False, False]
