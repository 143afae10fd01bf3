"""What the server counts, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..vllm.metrics import VisualTokens
from .answering import Answer

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "duet_requests", "Requests to /v1/chat/completions by HTTP status; 499: the client went away.", ["status"],
            registry=self.registry,
        )  # fmt: skip
        self.gone = self._counter("duet_requests_gone", "Requests whose client went away before the answer's end.")
        self.running = self._gauge("duet_requests_running", "Requests that are computed now.")
        self.waiting = self._gauge("duet_requests_waiting", "Requests that come in or wait.")
        self.visual = VisualTokens(self.registry)
        self.prompt_tokens = self._counter("duet_prompt_tokens", "Tokens of prompts before compression.")
        self.new_tokens = self._counter("duet_answer_tokens", "Tokens of answers.")
        self.fallback = self._counter("duet_fallback", "Answers that were given again with all visual tokens.")
        self.first = self._seconds("duet_first_text_seconds", "Seconds from the queue to the answer's first text.")
        self.whole = self._seconds("duet_answer_seconds", "Seconds from the queue to the answer's end.")

    def count(self, answer: Answer, first: float | None, whole: float) -> None:
        """Count an answer.

        Args:
            first: seconds to its first text; None where it has none.
            whole: seconds to its end.
        """
        self.visual.count(answer.visual_tokens, answer.visual_kept)
        self.prompt_tokens.inc(answer.prompt_tokens)
        self.new_tokens.inc(answer.new_tokens)
        self.fallback.inc(answer.fell_back)
        if first is not None:
            self.first.observe(first)
        self.whole.observe(whole)

    def text(self) -> bytes:
        """All figures."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(name, what, registry=self.registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(name, what, registry=self.registry)

    def _seconds(self, name: str, what: str) -> Histogram:
        return Histogram(name, what, registry=self.registry, buckets=SECONDS)
