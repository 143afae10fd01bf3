"""The command `duet train`: what it says before, when it is stopped, and of what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from train_data import llava, plain, run_of, written
from train_runs import KillAfter, trained
from typer.testing import CliRunner

from duet_vlm.cli.main import app
from duet_vlm.training import command
from duet_vlm.training.trainer import DuetTrainer


class StopAfter(KillAfter):
    """Ctrl-C."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


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
