"""The budget over the steps of a training run: all of it from the start, or falling from full tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from transformers import TrainerCallback

from ..config.budget import stage1_counts, tokens_per_layer
from ..config.fitting import last_that
from ..errors import DuetError
from ..presets import Drop, DuetConfig

GRID = 1000  # strengths between none and full; neighbours differ by less than a token
NOMINAL = 1000  # visual tokens of an image where images differ


def weaker(config: DuetConfig, strength: float, visual_tokens: int | None) -> DuetConfig:
    """The same compression, less of it: counts and keep ratios between all tokens (0) and the config's (1).

    Args:
        config: full strength.
        strength: 0 to 1.
        visual_tokens: of one image; None where images differ, which needs counts as fractions.

    Raises:
        ValueError: counts in tokens where images differ.
    """
    if strength >= 1:
        return config
    if strength <= 0:
        return DuetConfig()
    if config.downsample is not None:
        raise DuetError("a linear schedule cannot shrink images little by little: use a constant one with downsample.")
    drops = [Drop(d.layer, 1 + strength * (d.keep - 1), d.rank_at) for d in config.drops]
    if config.dominant is None:
        return replace(config, drops=drops)
    if visual_tokens is None:
        dominant, contextual = config.dominant, config.contextual
        if isinstance(dominant, int) or (contextual and isinstance(contextual, int)):
            raise DuetError(
                "a linear schedule needs dominant and contextual as fractions here, since images have different "
                "numbers of visual tokens: give fractions or keep."
            )
        merged = strength * contextual
        return replace(config, dominant=1 + strength * (dominant + contextual - 1) - merged, contextual=merged or 0,
                       drops=drops)  # fmt: skip
    one, two = stage1_counts(config, visual_tokens)
    entering = round(visual_tokens + strength * (one + two - visual_tokens))
    merged = max(1, round(strength * two)) if two else 0
    return replace(config, dominant=entering - merged, contextual=merged, drops=drops)


class Budget:
    """The config of every step, a function of the step alone, so that every process and a resumed run agree.

    Args:
        config: the compression at full strength.
        visual_tokens: of one image; None where images differ.
        layers: of the decoder.
        falling: the part of all steps over which the budget falls in a straight line from full tokens, in visual
            tokens per layer on average; 0 for the config from the start.
    """

    def __init__(self, config: DuetConfig, visual_tokens: int | None, layers: int, falling: float = 0.0):
        self.config, self.visual_tokens, self.layers, self.falling = config, visual_tokens, layers, falling
        if falling:
            weaker(config, 0.5, visual_tokens)

    def average(self, config: DuetConfig) -> float:
        """Visual tokens of an image, averaged over the decoder's layers."""
        dynamic = self.visual_tokens is None
        return sum(tokens_per_layer(config, self.visual_tokens or NOMINAL, self.layers, dynamic)) / self.layers

    def at(self, step: int, steps: int) -> DuetConfig:
        """What step `step` of `steps` (counted from 0) runs with."""
        progress = step / (self.falling * steps) if self.falling else 1.0
        if progress >= 1:
            return self.config
        full, end = self.visual_tokens or NOMINAL, self.average(self.config)
        wanted = full + progress * (end - full)
        # the strongest that still keeps as much as wanted
        return self.strength(last_that(lambda n: self.average(self.strength(n)) >= wanted, 0, GRID))

    def strength(self, step: int) -> DuetConfig:
        return weaker(self.config, step / GRID, self.visual_tokens)


class BudgetSchedule(TrainerCallback):
    """Gives an applied handle the config of the step that begins.

    Args:
        use: takes a config, `Duet.use`.
        budget: the config of every step.
    """

    def __init__(self, use: Callable[[DuetConfig], None], budget: Budget):
        self.use, self.budget = use, budget
        self.now: DuetConfig | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._turn_to(self.budget.at(state.global_step, state.max_steps))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._turn_to(self.budget.config)  # what is saved says what was trained for

    def _turn_to(self, config: DuetConfig) -> None:
        if config != self.now:
            self.use(config)
            self.now = config
