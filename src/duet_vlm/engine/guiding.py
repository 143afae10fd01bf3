"""What a video's sound is worth decides how many visual tokens stay in each window of time (`audio_guides`).

The idea is OmniZip's (arXiv 2511.14582): the share of a window's audio tokens that is retained tells how much happens
in it. There it sets how much is pruned of the window's frames before the language model; here it shares out what a drop
keeps of the video, so that the budget stays what it was.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config.budget import keep_count


@dataclass
class Window:
    """An unbroken run of a video's tokens in the prompt, with the sound behind it; or a whole image.

    Attributes:
        span: the number of its image or video.
        video: whether it is of a video.
        tokens: visual tokens that stage 1 left of it.
        heard, retained: audio tokens, and those of them that stage 1 retained.
    """

    span: int
    video: bool
    tokens: int = 0
    heard: int = 0
    retained: int = 0

    @property
    def worth(self) -> float:
        """The share of its audio tokens that is retained; 1 where it has none."""
        return self.retained / self.heard if self.heard else 1.0


@dataclass(frozen=True)
class Guide:
    """The windows of a prompt in order, each a span of stage 2."""

    windows: list[Window]

    def limits(self, keep: float) -> list[int]:
        """How many tokens of each span a drop keeps, text in front; of every video floor(keep M) in all."""
        counts = [keep_count(keep, one.tokens) for one in self.windows]
        for span in {one.span for one in self.windows if one.video}:
            own = [i for i, one in enumerate(self.windows) if one.video and one.span == span]
            tokens = [self.windows[i].tokens for i in own]
            shares = shared_out(keep_count(keep, sum(tokens)), tokens, [self.windows[i].worth for i in own])
            for i, count in zip(own, shares, strict=True):
                counts[i] = count
        return [0, *counts]


def shared_out(total: int, tokens: list[int], worth: list[float]) -> list[int]:
    """Share `total` out in proportion to tokens times worth, to each at most its tokens.

    One by one, to whoever would still be the farthest behind its share with it (D'Hondt), the earlier first.
    """
    weights, counts = [n * w for n, w in zip(tokens, worth, strict=True)], [0] * len(tokens)
    waiting = [(1 / w if w else math.inf, i) for i, w in enumerate(weights) if tokens[i]]
    heapq.heapify(waiting)
    for _ in range(total):
        _, i = heapq.heappop(waiting)
        counts[i] += 1
        if counts[i] < tokens[i]:
            heapq.heappush(waiting, ((counts[i] + 1) / weights[i] if weights[i] else math.inf, i))
    return counts


def guide_of(spans: Tensor, video: Tensor, audio: Tensor, gone: Tensor) -> tuple[Tensor, Guide]:
    """Cut the spans of videos into windows of time where their sound stands between their frames; read on the host.

    Args:
        spans: (B, S) long, as in `Prefill`: sounds have the last numbers.
        video, audio: (B, S) bool, the tokens of videos and of sounds.
        gone: (B, S) bool, what stage 1 removed.

    Returns:
        (B, S) long, spans of which each window is one; and the guide.
    """
    windows: list[Window] = []
    numbers = spans.tolist()
    for row, *kinds in zip(numbers, video.tolist(), audio.tolist(), gone.tolist(), strict=True):
        now: Window | None = None
        running = False
        for place, (span, seen, heard, removed) in enumerate(zip(list(row), *kinds, strict=True)):
            if heard:
                if now is not None:
                    now.heard, now.retained = now.heard + 1, now.retained + (not removed)
            elif not span:
                now = None  # text ends the sound of a window
            else:
                if now is None or not running or now.span != span:
                    now = Window(span, seen)
                    windows.append(now)
                now.tokens += not removed
                row[place] = len(windows)
            running = not heard
    sounds = torch.where(audio, spans - spans.masked_fill(audio, 0).max() + len(windows), 0)
    return torch.where(audio, sounds, torch.tensor(numbers, device=spans.device)), Guide(windows)
