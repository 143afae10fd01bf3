"""Runs of `duet train` on tiny models: what is trained and saved, and that a resumed run equals one in one piece."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from train_data import llava, plain, run_of, written
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from typer.testing import CliRunner

import duet_vlm
from duet_vlm.cli.main import app
from duet_vlm.training import command
from duet_vlm.training.resuming import last_checkpoint
from duet_vlm.training.trainer import DuetTrainer, GroupedByLength, SaveError

LINEAR = {"method": "duet", "keep": 0.33, "schedule": "linear", "falling": 0.75}


class Killed(Exception):
    pass


class KillAfter(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Killed


class StopAfter(KillAfter):
    """Ctrl-C."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def losses(trainer: DuetTrainer) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}


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


def test_steps_of_the_schedule_are_seen_in_what_is_logged(tmp_path: Path) -> None:
    trainer = trained(plain(tmp_path, compression=LINEAR, steps=8, report="tensorboard"))
    rows = [row for row in trainer.state.log_history if "loss" in row]
    saved = [row["visual_tokens_saved"] for row in rows if "visual_tokens_saved" in row]
    assert saved[0] == 0 and saved == sorted(saved) and saved[-1] == pytest.approx(0.67, abs=0.02)
    assert all(row["samples_per_second"] > 0 and row["tokens_per_second"] > 0 for row in rows)
    assert list((tmp_path / "out" / "runs").rglob("events.out.tfevents.*"))  # TensorBoard, through the Trainer


@pytest.mark.parametrize(
    "train,tower,free",
    [
        ("projector", "frozen", {"multi_modal_projector"}),
        ("projector", "trained", {"multi_modal_projector", "vision_tower"}),
        ("lora", "frozen", {"multi_modal_projector", "lora"}),
        ("lora", "trained", {"multi_modal_projector", "vision_tower", "lora"}),
        ("full", "frozen", {"multi_modal_projector", "language_model", "lm_head"}),
        ("full", "trained", {"multi_modal_projector", "vision_tower", "language_model", "lm_head"}),
    ],
)
def test_what_is_trained(train: str, tower: str, free: set[str], tmp_path: Path) -> None:
    settings = plain(tmp_path, train=train, tower=tower, steps=2, gradient_checkpointing=True, lora={"rank": 2})
    run = run_of(settings)
    trainer = command.trainer_of(run)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    kinds = ("lora", "multi_modal_projector", "vision_tower", "lm_head", "language_model")
    assert {next(kind for kind in kinds if kind in name) for name in changed} == free
    assert changed <= {name for name, p in trainer.model.named_parameters() if p.requires_grad}


def loaded(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("train", ["full", "lora"])
def test_what_is_saved_is_compressed_again_by_apply(train: str, tmp_path: Path) -> None:
    run = run_of(plain(tmp_path, train=train, compression=LINEAR, lora={"rank": 2}))
    command.train(run)
    model, processor = loaded(tmp_path / "out" / "model")
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["duet"] == run.full.to_dict()
    assert [p.suffix for p in (tmp_path / "out" / "model").glob("*model*")] == [".safetensors"]
    assert not list((tmp_path / "out").glob(".saving")) and not list((tmp_path / "out").rglob("*.old"))
    handle = duet_vlm.apply(model, tokenizer=processor)
    assert handle.config == run.full
    if train == "lora":
        from peft import PeftModel

        adapter = tmp_path / "out" / "adapter"
        config = duet_vlm.DuetConfig.from_dict(json.loads((adapter / "duet.json").read_text()))
        assert config == run.full and (adapter / "adapter_model.safetensors").is_file()
        base, _ = loaded(tmp_path / "model")
        adapted = PeftModel.from_pretrained(base, adapter)
        duet_vlm.apply(adapted, config, tokenizer=processor)
        batch = {k: v for k, v in command.Collator(processor)([run.dataset[0]]).items() if k != "labels"}
        with torch.no_grad():
            torch.testing.assert_close(model(**batch).logits, adapted(**batch).logits, atol=1e-4, rtol=1e-4)


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


def test_order_by_length_is_a_function_of_seed_and_epoch() -> None:
    lengths = [(i * 37) % 101 for i in range(64)]
    one, other = GroupedByLength(lengths, 4, 1), GroupedByLength(lengths, 4, 1)
    torch.manual_seed(5)
    first = list(one)
    assert list(one) == first == list(other) and sorted(first) == list(range(64))
    one.set_epoch(1)
    assert list(one) != first
    groups = [[lengths[i] for i in first[j : j + 4]] for j in range(0, 64, 4)]
    spread = [max(group) - min(group) for group in groups]
    assert sum(spread) / len(spread) < 25  # neighbours are alike: 80 at random


def duet(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_command(tmp_path: Path) -> None:
    file = written(tmp_path, plain(tmp_path))
    checked = duet("train", "--config", file, "--check")
    assert checked.exit_code == 0 and "10 records are good." in checked.stderr
    assert not (tmp_path / "out" / "model").exists()
    result = duet("train", "--config", file)
    assert result.exit_code == 0, result.output
    assert f"Saved in {tmp_path / 'out' / 'model'}" in result.stdout.replace("\n", "")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    again = duet("train", "--config", file, "--resume")
    assert again.exit_code == 0, again.output
    assert f"Finished already: {tmp_path / 'out' / 'model'}. Nothing was changed." in again.stdout.replace("\n", "")
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}


@pytest.mark.parametrize("steps", [1, 3])
def test_ctrl_c_says_how_to_go_on(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = command.trainer_of

    def stopping(run: Any) -> DuetTrainer:
        trainer = make(run)
        trainer.add_callback(StopAfter(steps))
        return trainer

    monkeypatch.setattr(command, "trainer_of", stopping)
    result = duet("train", "--config", written(tmp_path, plain(tmp_path)))
    assert result.exit_code == 130
    how = "go on from checkpoint-2 with --resume" if steps > 2 else "there is no checkpoint yet, so start it again"
    assert f"duet: stopped; {how}." in result.stderr


def test_check_says_what_will_be_done(tmp_path: Path) -> None:
    settings = plain(tmp_path, accumulation=2, epochs=1.5, save={"every": 1})
    del settings["steps"]
    checked = duet("train", "--config", written(tmp_path, settings), "--check")
    assert checked.exit_code == 0, checked.output
    trainer = trained(settings)
    lengths = run_of(settings | {"output": str(tmp_path / "other")}).checked.lengths
    free = [p.numel() for p in trainer.model.parameters() if p.requires_grad]
    every = [p.numel() for p in trainer.model.parameters()]
    config = trainer.handle.config
    lines = checked.stdout.splitlines()
    assert lines[0] == "records: 10"
    assert lines[1] == (
        f"steps: {trainer.state.max_steps} of 4 samples, 2 epochs; about {sum(lengths) / 10 * 4:,.0f} tokens a step "
        "before compression"
    )
    assert lines[2].startswith("compression: duet, 65.0 of") and "196 visual tokens per layer on average: " in lines[2]
    assert f"dominant {config.dominant}, contextual {config.contextual}" in lines[2]
    assert "0.5 from layer 2 and 0 from layer 3" in lines[2]
    assert lines[3] == f"trained: language model, projector; {sum(free):,} of {sum(every):,} parameters"


def test_check_finds_what_no_layer_is_named_by(tmp_path: Path) -> None:
    settings = plain(tmp_path, train="lora", lora={"targets": "nothing"})
    result = duet("train", "--config", written(tmp_path, settings), "--check")
    assert result.exit_code == 2 and "lora.targets 'nothing' names no layer" in result.stderr
    lora = plain(tmp_path, train="lora", lora={"rank": 3}, tower="trained")
    lines = duet("train", "--config", written(tmp_path, lora), "--check").stdout.splitlines()
    trainer = trained(lora | {"steps": 1})
    free = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert lines[3].startswith(f"trained: adapters of rank 3, projector, vision tower; {free:,} of ")


def test_check_reads_the_records_where_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    class NoGpu(transformers.TrainingArguments):
        def __init__(self, **options: Any):
            if options.get("bf16") and not options.get("use_cpu"):
                raise ValueError("Your setup doesn't support bf16/gpu.")
            super().__init__(**options)

    monkeypatch.setattr(transformers, "TrainingArguments", NoGpu)
    settings = plain(tmp_path, bf16=True, trainer={"disable_tqdm": True})
    records = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps([*records, llava(1, "gone.png")]))
    file = written(tmp_path, settings)
    broken = duet("train", "--config", file, "--check")
    assert broken.exit_code == 2 and "gone.png' does not exist" in broken.stderr
    checked = duet("train", "--config", file, "--check", "--skip-broken")
    assert checked.exit_code == 0, checked.output
    note = "on this machine the Trainer would refuse these settings (Your setup doesn't support bf16/gpu)"
    assert note in checked.stderr
    assert "records: 10, and 1 left out" in checked.stdout
    refused = duet("train", "--config", file, "--skip-broken")
    assert refused.exit_code == 2 and "the Trainer refuses these settings (Your setup" in refused.stderr
    # what no device changes is refused by the check too
    wrong = duet("train", "--config", written(tmp_path, settings | {"trainer": {"optim": "no_such"}}), "--check")
    assert wrong.exit_code == 2 and "the Trainer refuses these settings" in wrong.stderr


def test_command_lists_broken_records(tmp_path: Path) -> None:
    file = written(tmp_path, plain(tmp_path))
    records = json.loads((tmp_path / "data.json").read_text())
    records += [llava(1, "gone.png"), llava(1, None) | {"image": "a.png"}]
    (tmp_path / "data.json").write_text(json.dumps(records))
    result = duet("train", "--config", file)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if "record 1" in line]
    assert len(lines) == 2 and "gone.png' does not exist" in lines[0] and "0 <image> places" in lines[1]
    assert "2 of 12 records are broken: put them right, or go on without them with --skip-broken." in result.stderr
    assert not (tmp_path / "out" / "checkpoint-2").exists()
    result = duet("train", "--config", file, "--skip-broken")
    assert result.exit_code == 0 and "10 records are good." in result.stderr and "left out: " in result.stderr


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"model": "./nowhere"}, "model './nowhere' is no folder"),
        ({"image_folder": "nowhere"}, "image_folder 'nowhere' is no folder"),
        ({"data": "nowhere.json"}, "data 'nowhere.json' does not exist"),
        ({"compression": {"tokens": 5000}}, "cannot meet a budget"),
        ({"compression": {"method": "settings", "settings": {"drops": [{"layer": 9, "keep": 0.5}]}}}, "drop layer 9"),
        ({"train": "lora", "lora": {"targets": "nothing"}}, "lora.targets 'nothing' names no layer"),
    ],
)
def test_command_refuses_in_a_sentence(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    result = duet("train", "--config", written(tmp_path, plain(tmp_path, **changes)))
    assert result.exit_code == 2, result.output
    assert message in result.stderr.splitlines()[-1] and result.stderr.splitlines()[-1].startswith("duet: ")


def test_help_is_complete() -> None:
    shown = duet("train", "--help").stdout
    for text in ("--config", "--resume", "--skip-broken", "--check", "duet train --config examples/train.yaml"):
        assert text in shown
