"""What recorded times of requests say. Plain arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...errors import DuetError


@dataclass(frozen=True)
class Answered:
    """One request.

    Attributes:
        asked, first, last: seconds on one clock when it was sent, and when its first and its last token came.
        tokens: of the answer.
        prompt_tokens: of the prompt, as the engine counts them after stage 1.
    """

    asked: float
    first: float
    last: float
    tokens: int
    prompt_tokens: int

    @property
    def to_first(self) -> float:
        """Seconds from the question to the first token."""
        return self.first - self.asked

    @property
    def per_token(self) -> float:
        """Seconds of each token after the first, on average."""
        return (self.last - self.first) / (self.tokens - 1)


@dataclass(frozen=True)
class Round:
    """What one setting did once at one concurrency.

    Attributes:
        requests: all that were answered.
    """

    requests: tuple[Answered, ...]

    @classmethod
    def of(cls, reply: dict[str, Any]) -> Round:
        """From what the engine's process wrote."""
        return cls(tuple(Answered(**request) for request in reply["requests"]))

    @property
    def seconds(self) -> float:
        """From the first question to the last token of the last answer."""
        return max(one.last for one in self.requests) - min(one.asked for one in self.requests)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.requests) / self.seconds


def check_whole(name: str, found: Round, requests: int, tokens: int, prompt_tokens: int) -> None:
    """Raises DuetError where requests are missing, answers are short, or prompts have another length than scheduled.

    Args:
        name: of the setting.
        found: what it did.
        requests, tokens, prompt_tokens: how many requests, how long their answers and their prompts have to be.
    """
    if len(found.requests) != requests:
        raise DuetError(f"{name} answered {len(found.requests)} of {requests} requests: these times are no comparison.")
    for one in found.requests:
        if one.tokens != tokens:
            raise DuetError(
                f"{name} answered with {one.tokens} tokens where {tokens} were asked for: these times are no "
                "comparison."
            )
        if one.prompt_tokens != prompt_tokens:
            raise DuetError(
                f"{name} computed prompts of {one.prompt_tokens} tokens where its schedule has {prompt_tokens}: these "
                "times are no comparison."
            )


def figures(concurrency: int, rounds: Sequence[Round], stock: Sequence[Round] | None = None) -> dict[str, Any]:
    """Medians at one concurrency: of the rounds for rates, of all their requests for times.

    Args:
        concurrency: how many clients asked.
        rounds: of one setting.
        stock: those of stock, in the same order; None for stock itself.

    Returns:
        JSON-able; with `stock`, also what is gained: above 1 is faster than stock. Ranges are over pairs of rounds.
    """
    every = [request for one in rounds for request in one.requests]
    row: dict[str, Any] = {
        "concurrency": concurrency,
        "requests": len(every),
        "requests_per_s": median(one.rate for one in rounds),
        "first_token_ms": 1e3 * median(one.to_first for one in every),
        "per_token_ms": 1e3 * median(one.per_token for one in every),
        "answer_tokens_per_s": median(sum(one.tokens for one in each.requests) / each.seconds for each in rounds),
    }
    if stock is None:
        return row
    base = figures(concurrency, stock)
    paired = [ours.rate / theirs.rate for ours, theirs in zip(rounds, stock, strict=True)]
    return row | {
        "requests_speedup": row["requests_per_s"] / base["requests_per_s"],
        "requests_speedup_range": [min(paired), max(paired)],
        "first_token_speedup": base["first_token_ms"] / row["first_token_ms"],
        "per_token_speedup": base["per_token_ms"] / row["per_token_ms"],
    }
