"""What a training says while it runs: a line of figures at every log, and nothing of other libraries."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from train_data import plain, run_of, written

from duet_vlm.training import command
from duet_vlm.training.progress import line


def test_every_log_is_a_line_of_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = command.trainer_of(run_of(plain(tmp_path, steps=3, log_every=2)))
    capsys.readouterr()
    trainer.train()
    lines = capsys.readouterr().out.splitlines()
    first, *rest = trainer.state.log_history
    assert len(lines) == 1 + len(rest)
    for text, name, digits in (("loss", "loss", 3), ("learning rate", "learning_rate", 8), ("epoch", "epoch", 2)):
        said = re.search(rf"{text} ([\d.e-]+)", lines[0])
        assert said is not None and float(said[1]) == pytest.approx(first[name], abs=10**-digits)
    assert lines[0].startswith("step 2 of 3: loss ")
    assert f"{first['visual_tokens_saved']:.1%} of the visual tokens saved" in lines[0]
    assert re.fullmatch(r"3 steps in \d+ s, mean loss [\d.]+", lines[-1])
    assert float(lines[-1].split()[-1]) == pytest.approx(rest[-1]["train_loss"], abs=1e-3)


def test_figures_without_a_name_of_ours_are_told_by_theirs() -> None:
    assert line({"loss": 0.5, "mean_token_accuracy": 0.75}, 1, 2) == "step 1 of 2: loss 0.5, mean_token_accuracy 0.75"


@pytest.mark.parametrize("train", ["full", "lora"])
def test_no_library_speaks(train: str, tmp_path: Path) -> None:
    changes = {"trainer": {"use_cpu": True}, "gradient_checkpointing": True, "lora": {"rank": 2}, "steps": 2}
    file = written(tmp_path, plain(tmp_path, train=train, **changes))
    done = subprocess.run(
        [sys.executable, "-m", "duet_vlm", "train", "--config", str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [text for text in done.stderr.splitlines() if text] == ["10 records are good."]
    said = done.stdout.splitlines()
    assert [text.split(":")[0] for text in said[:2]] == ["step 1 of 2", "step 2 of 2"] and "Saved in" in done.stdout
