"""Runs of training on tiny models, killed or stopped where a test wants it."""

from __future__ import annotations

from typing import Any

import pytest
from train_data import run_of
from transformers import TrainerCallback

from duet_vlm.training import command
from duet_vlm.training.trainer import DuetTrainer

LINEAR = {"method": "duet", "keep": 0.33, "schedule": "linear", "falling": 0.75}


class Killed(Exception):
    pass


class KillAfter(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Killed


def trained(settings: dict[str, Any], resume: bool = False, kill: int | None = None) -> DuetTrainer:
    run = run_of(settings, resume)
    trainer = command.trainer_of(run)
    if kill is not None:
        trainer.add_callback(KillAfter(kill))
        with pytest.raises(Killed):
            trainer.train()
    else:
        trainer.train(resume_from_checkpoint=None if run.checkpoint is None else str(run.checkpoint))
    return trainer
