"""The counters of visual tokens, by the same names whichever engine serves. Knows Prometheus' client and not vLLM."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class VisualTokens:
    """Counts visual tokens of prompts: as they were, as they were kept, and what that saved.

    Args:
        registry: where the counters are.
    """

    def __init__(self, registry: CollectorRegistry):
        def counter(name: str, what: str) -> Counter:
            return Counter(f"duet_visual_tokens_{name}", what, registry=registry)

        self._before = counter("in", "Visual tokens of prompts before compression.")
        self._kept = counter("kept", "Visual tokens, average over the decoder's layers.")
        self._saved = counter("saved", "Visual tokens in, less those kept.")

    def count(self, before: int, kept: float) -> None:
        """Count a prompt.

        Args:
            before: its visual tokens as the processor made them.
            kept: as the decoder's layers work on them, on average over the layers, which is the unit of budgets.
        """
        self._before.inc(before)
        self._kept.inc(kept)
        self._saved.inc(before - kept)
