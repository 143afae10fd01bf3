"""How much of a sound stays, by one number of its own: `audio_keep` (docs/audio.md). Plain arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import DuetError
from .budget import keep_count
from .budget_rule import Budget
from .settings import Settings

AUTO = "auto"  # what a preset takes as `audio_keep`
_HALVINGS = 60  # of an interval of 1: as exact as a float


@dataclass(frozen=True)
class AudioSchedule:
    """What `audio_keep` means on a decoder: every step, stage 1 and each drop, leaves the same share of what it finds.

    Attributes:
        merged: the share of a sound's tokens that stage 1 retains.
        ratios: drop layer -> how many of those stay, as a keep ratio of `Drop`.

    Example:
        >>> from duet_vlm import Drop, DuetConfig
        >>> config = DuetConfig(drops=[Drop(14, 0.5), Drop(21, 0.25)], audio_keep=0.5)
        >>> found = AudioSchedule.of(config, layers=28)
        >>> round(found.merged, 3), {layer: round(ratio, 3) for layer, ratio in found.ratios.items()}
        (0.661, {14: 0.661, 21: 0.437})
        >>> found.tokens_per_layer(1000, 28)[::7]
        [661, 661, 437, 288]
    """

    merged: float
    ratios: Mapping[int, float]

    @classmethod
    def of(cls, config: Settings, layers: int) -> AudioSchedule | None:
        """The schedule that averages to `config.audio_keep` over the decoder layers; None where sound is text.

        Sound goes at the layers where visual tokens go, with ratios of its own.
        """
        if config.audio_keep is None:
            return None
        where = [drop.layer for drop in config.drops if drop.keep < 1]
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if _average(middle, where, layers) < config.audio_keep else (low, middle)
        return cls(high, {layer: high**step for step, layer in enumerate(where, start=1)})

    def retained(self, tokens: int) -> int:
        """How many of a sound's tokens stage 1 retains: rounded down, to at least 1."""
        return max(1, keep_count(self.merged, tokens))

    def tokens_per_layer(self, tokens: int, layers: int) -> list[int]:
        """Tokens of one sound that each of the `layers` decoder layers works on."""
        entering = self.retained(tokens)
        counts = [entering] * layers
        for layer, ratio in self.ratios.items():
            counts[layer:] = [keep_count(ratio, entering)] * (layers - layer)
        return counts


def milder(visual: Budget, whole: int | None) -> float:
    """The `audio_keep` beside a budget of visual tokens: the square root of the share of them that it is.

    Args:
        visual: the budget.
        whole: visual tokens of an image; None where images differ.

    Raises:
        DuetError: a number of tokens of images that differ.
    """
    if visual.keep is not None:
        return float(visual.keep**0.5)
    if visual.coverage is not None:
        raise DuetError(
            "audio_keep 'auto' goes by a share of the visual tokens, which coverage does not know: give one."
        )
    if whole is None or visual.tokens is None:
        raise DuetError("audio_keep 'auto' goes by a share of the visual tokens: give keep=, or an image's grid= too.")
    return float(min(1.0, visual.tokens / whole) ** 0.5)


def _average(share: float, where: list[int], layers: int) -> float:
    """The share of tokens that a layer works on, on average, where every step leaves `share`."""
    steps = enumerate(zip([0, *where], [*where, layers], strict=True), start=1)
    return sum((end - start) * share**step for step, (start, end) in steps) / layers
