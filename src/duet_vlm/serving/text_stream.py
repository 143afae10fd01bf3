"""An answer's text while its tokens come, and when it has to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.generation.stopping_criteria import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

UNFINISHED = "\ufffd"  # a character of which not all bytes are there


class TextStream(BaseStreamer):
    """Takes the tokens of one answer from `generate`, and gives on the text that can no longer change.

    The text is that of all tokens decoded at once, up to where the first stop text begins. What may be the beginning
    of a stop text, or of a character, is held back until more is known.

    Args:
        decode: token ids -> text.
        stop: texts before which the answer ends.
        put: gets the text, piece by piece.

    Attributes:
        tokens: ids of the answer so far.
        text: what `put` was given so far, in all.
        stopped: whether a stop text has come.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: tuple[str, ...], put: Callable[[str], None]):
        self._decode, self._stop, self._put = decode, stop, put
        self._begun = False
        self.tokens: list[int] = []
        self.text, self.stopped = "", False

    def put(self, value: Any) -> None:
        if not self._begun:  # the prompt comes first
            self._begun = True
            return
        self.tokens += value.reshape(-1).tolist()
        self._give(last=False)

    def end(self) -> None:
        self._give(last=True)

    def _give(self, last: bool) -> None:
        if self.stopped:
            return
        whole = self._decode(self.tokens)
        places = [place for place in map(whole.find, self._stop) if place >= 0]
        self.stopped = bool(places)
        if self.stopped:
            whole = whole[: min(places)]
        elif not last:
            whole = whole[: len(whole) - self._uncertain(whole)]
        if whole.startswith(self.text) and len(whole) > len(self.text):
            piece, self.text = whole[len(self.text) :], whole
            self._put(piece)

    def _uncertain(self, text: str) -> int:
        """How many characters at the end may still become others, or part of a stop text."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return len(text) - len(text.rstrip(UNFINISHED))


class Ends(StoppingCriteria):
    """Ends `generate` behind a stop text, and when nobody waits for the answer any more."""

    def __init__(self, stream: TextStream, gone: Callable[[], bool]):
        self._stream, self._gone = stream, gone

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        over = self._stream.stopped or self._gone()
        return torch.full((input_ids.shape[0],), over, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]
