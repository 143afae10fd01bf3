"""A training that was stopped goes on as one in one piece, from whole checkpoints of the same run alone."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from train_data import plain, run_of
from train_runs import LINEAR, trained
from transformers import AutoModelForImageTextToText, TrainerCallback

from duet_vlm.training import command
from duet_vlm.training.resuming import last_checkpoint
from duet_vlm.training.trainer import DuetTrainer, SaveError


def losses(trainer: DuetTrainer) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}


@pytest.mark.parametrize(
    "kill,changes",
    [
        (4, {}),
        (4, {"compression": LINEAR, "accumulation": 2}),
        (7, {"compression": LINEAR, "train": "lora", "lora": {"rank": 4, "dropout": 0.2}}),
        (5, {"compression": LINEAR, "train": "projector", "group_by_length": False, "bf16": True}),
    ],
    ids=["full", "accumulation", "lora", "projector"],
)
def test_a_resumed_run_has_the_losses_of_one_in_one_piece(kill: int, changes: dict[str, Any], tmp_path: Path) -> None:
    # 10 records in batches of 2, so 5 steps an epoch: the cut falls within the first epoch or the second
    settings = plain(tmp_path, steps=8, save={"every": 3, "keep": 9}, **changes)
    whole = trained(settings | {"output": str(tmp_path / "whole")})
    trained(settings, kill=kill)
    assert last_checkpoint(tmp_path / "out") == tmp_path / "out" / f"checkpoint-{kill - kill % 3}"
    rest = trained(settings, resume=True)
    expected = losses(whole)
    assert set(expected) == set(range(1, 9)) and len(set(expected.values())) == 8
    assert losses(rest) == expected
    for one, other in zip(whole.model.parameters(), rest.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert rest.handle.config == whole.handle.config


def test_losses_that_were_not_logged_yet_are_those_of_a_run_in_one_piece(tmp_path: Path) -> None:
    # logged at 3, 6 and 8, saved at 2 and 4: a mean of three steps is cut in two
    settings = plain(tmp_path, steps=8, save={"every": 2, "keep": 9}, log_every=3)
    whole = trained(settings | {"output": str(tmp_path / "whole")})
    trained(settings, kill=5)
    run = run_of(settings, resume=True)
    assert run.checkpoint == tmp_path / "out" / "checkpoint-4"
    rest = command.trainer_of(run)
    said = rest.train(resume_from_checkpoint=str(run.checkpoint))
    assert losses(rest) == losses(whole) and set(losses(whole)) == {3, 6}
    (end,) = (row["train_loss"] for row in whole.state.log_history if "train_loss" in row)
    assert rest.state.log_history[-1]["train_loss"] == end == said.training_loss
    every = trained(settings | {"output": str(tmp_path / "every"), "log_every": 1})
    steps = losses(every)
    assert losses(rest)[6] == pytest.approx((steps[4] + steps[5] + steps[6]) / 3, rel=1e-5)
    assert end == pytest.approx(sum(steps.values()) / 8, rel=1e-5)


def test_checkpoints_of_another_run_are_refused(tmp_path: Path) -> None:
    settings = plain(tmp_path)
    trained(settings)
    with pytest.raises(ValueError, match=r"holds checkpoint-4 of an earlier run: go on with --resume"):
        run_of(settings)
    run_of(settings | {"log_every": 3, "save": {"every": 9}}, resume=True)  # may change
    for changes, message in (
        ({"learning_rate": 0.5}, "was made with learning_rate 0.001 and the config says 0.5"),
        ({"compression": {"keep": 0.5}}, "was made with compression.keep 0.33 and the config says 0.5"),
        ({"trainer": {"use_cpu": True, "weight_decay": 1.0}}, "trainer.weight_decay None and the config says 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            run_of(settings | changes, resume=True)
    other = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    other.config.text_config.rms_norm_eps = 0.5
    other.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="belongs to another model"):
        run_of(settings, resume=True)
    (tmp_path / "out" / "checkpoint-4" / "duet_train.json").unlink()
    with pytest.raises(ValueError, match="was not written by duet train"):
        run_of(settings, resume=True)
    with pytest.raises(ValueError, match="holds no checkpoint: leave out --resume"):
        run_of(settings | {"output": str(tmp_path / "new")}, resume=True)


def test_other_records_are_refused(tmp_path: Path) -> None:
    settings = plain(tmp_path)
    trained(settings)
    records = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps(records[:-1]))
    with pytest.raises(ValueError, match="was made with other records"):
        run_of(settings, resume=True)


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["weights", "optimizer", "stamp"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = plain(tmp_path, steps=6)
    run = run_of(settings)
    trainer = command.trainer_of(run)

    class Fill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                target = {"weights": (trainer.model, "save_pretrained"), "stamp": (trainer, "stamp")}
                owner, name = target.get(where, (trainer, "_save_optimizer_and_scheduler"))
                monkeypatch.setattr(owner, name, full_disk)

    trainer.add_callback(Fill())
    with pytest.raises(SaveError, match=r"checkpoint-4 could not be written .*No space left.*, checkpoint-2 is whole"):
        trainer.train()
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["checkpoint-2", "records.json"]
    assert last_checkpoint(out) == out / "checkpoint-2"
    monkeypatch.undo()
    if where == "weights":
        assert set(losses(trained(settings, resume=True))) == set(range(1, 7))


def test_a_full_disk_at_the_end_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(plain(tmp_path, steps=2))
    monkeypatch.setattr(DuetTrainer, "save_model", lambda *a, **k: full_disk())
    monkeypatch.setattr(DuetTrainer, "_save_checkpoint", lambda *a, **k: (tmp_path / "out" / "checkpoint-2").mkdir())
    with pytest.raises(SaveError, match=r"trained model could not be written .*checkpoint-2 is whole: .*--resume"):
        command.train(run)
    assert not (tmp_path / "out" / "model").exists()


def test_a_write_that_was_cut_short_is_no_checkpoint(tmp_path: Path) -> None:
    settings = plain(tmp_path)
    trained(settings, kill=3)
    part = tmp_path / "out" / ".saving" / "checkpoint-4"
    part.mkdir(parents=True)
    (part / "model.safetensors").write_bytes(b"half")
    run = run_of(settings, resume=True)
    assert run.checkpoint == tmp_path / "out" / "checkpoint-2"
    command.train(run)
    assert not (tmp_path / "out" / ".saving").exists() and (tmp_path / "out" / "checkpoint-4").is_dir()


def test_only_the_last_checkpoints_stay(tmp_path: Path) -> None:
    trained(plain(tmp_path, steps=5, save={"every": 1, "keep": 2}))
    assert sorted(p.name for p in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-5"]
