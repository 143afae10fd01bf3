"""What a run will do, in words, before any weight is loaded."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import torch

from ..presets import DuetConfig
from . import models
from .command import TrainingRun


def plan(run: TrainingRun) -> str:
    """Records, steps, tokens a step, the settings that the budget became, and what is trained; a line each.

    Raises:
        ValueError: there is nothing in this model that the settings would train.
    """
    settings, arguments = run.settings, run.arguments
    samples = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    good, steps = len(run.dataset), steps_of(run)
    tokens = sum(run.checked.lengths) / good * samples
    trained, everything = parameters(run)
    left_out = len(run.checked.broken)
    return "\n".join(
        [
            f"records: {good:,}" + (f", and {left_out:,} left out" if left_out else ""),
            f"steps: {steps:,} of {samples} samples, {steps * samples / good:.2g} epochs; "
            f"about {tokens:,.0f} tokens a step before compression",
            f"compression: {compression(run)}",
            f"trained: {what(settings)}; {trained:,} of {everything:,} parameters",
        ]
    )


def steps_of(run: TrainingRun) -> int:
    """As the Trainer counts them: the last step of an epoch may be smaller."""
    settings, arguments = run.settings, run.arguments
    if settings.steps is not None:
        return settings.steps
    batches = math.ceil(len(run.dataset) / (arguments.train_batch_size * arguments.world_size))
    an_epoch = math.ceil(batches / arguments.gradient_accumulation_steps)
    steps: int = math.ceil((settings.epochs or 1.0) * an_epoch)
    return steps


def compression(run: TrainingRun) -> str:
    """The method, its budget and the fields of the config that are not what they are by default."""
    chosen, config = run.settings.compression, run.full
    if config == DuetConfig():
        return "none"
    average = run.budget.average(config)
    if run.budget.visual_tokens is None:
        budget = f"{average / run.budget.average(DuetConfig()):.1%} of the visual tokens"
    else:
        budget = f"{average:.1f} of {run.budget.visual_tokens} visual tokens"
    changed = [
        f"{field.name} {_plain(getattr(config, field.name))}"
        for field in fields(config)
        if getattr(config, field.name) != getattr(DuetConfig(), field.name)
    ]
    falling = f", falling over {chosen.falling:.0%} of the steps" if chosen.schedule == "linear" else ""
    return f"{chosen.method}, {budget} per layer on average{falling}: {', '.join(changed)}"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " and ".join(f"{drop.keep:g} from layer {drop.layer}" if hasattr(drop, "keep") else str(drop)
                            for drop in value)  # fmt: skip
    return f"{value:g}" if isinstance(value, float) else str(value)


def what(settings: Any) -> str:
    """The parts of the model that learn."""
    parts = {"projector": ["projector"], "full": ["language model", "projector"]}.get(settings.train)
    if parts is None:
        parts = [f"adapters of rank {settings.lora.rank}"] + (["projector"] if settings.lora.projector else [])
    return ", ".join(parts + (["vision tower"] if settings.tower == "trained" else []))


def parameters(run: TrainingRun) -> tuple[int, int]:
    """Those trained, and all, of a model without weights."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(run.model_config)
        return models.count_trained(models.freed(model, run.settings))
