"""Other people's trainers with `apply` on the model: transformers' own, TRL's, and `duet train` on two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from saved import photo, processor, save
from train_data import llava, plain, written
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.training.cli import _parting
from duet_vlm.training.conversations import Renderer
from duet_vlm.training.dataset import Collator, Conversations
from duet_vlm.training.records import conversation
from duet_vlm.training.trainer import DuetTrainer

BOTH = DuetConfig(dominant=40, contextual=6, drops=[Drop(1, 0.5), Drop(3, 0.0)])
SMALL: dict[str, Any] = dict(
    per_device_train_batch_size=2, max_steps=3, learning_rate=1e-3, logging_steps=1, report_to="none", use_cpu=True,
    save_strategy="no", disable_tqdm=True, remove_unused_columns=False, seed=1,
)  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Any:
    photo(tmp_path / "a.png")
    return AutoModelForImageTextToText.from_pretrained(save(tmp_path / "model"))


def check(trainer: Any, handle: Any) -> None:
    """Finite losses, weights that moved, and tokens that were dropped."""
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 3 and torch.tensor(losses).isfinite().all()
    after = dict(trainer.model.named_parameters())
    moved = {name for name, old in before.items() if not torch.equal(after[name], old)}
    assert any("language_model" in name for name in moved)
    with_image = [s.tokens_per_layer for s in handle.trace.samples if s.visual]
    assert with_image == [[46, 23, 23, 0]] * len(with_image) and with_image


def test_transformers_trainer(model: Any, tmp_path: Path) -> None:
    made = processor()
    handle = duet_vlm.apply(model, BOTH, tokenizer=made)
    rows = Conversations([conversation(llava(2, "a.png", i), tmp_path) for i in range(6)], Renderer(made), 8)
    arguments = TrainingArguments(output_dir=str(tmp_path / "out"), activation_checkpointing=True, **SMALL)
    check(Trainer(model=model, args=arguments, data_collator=Collator(made), train_dataset=rows), handle)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_trl_sft_trainer(lora: bool, model: Any, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="comes with the train extra")
    from datasets import Dataset
    from peft import LoraConfig

    made = processor()
    handle = duet_vlm.apply(model, BOTH, tokenizer=made)
    picture = Image.open(tmp_path / "a.png").convert("RGB")
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what color is the star ?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
    ]
    rows = Dataset.from_list([{"prompt": turns[:1], "completion": turns[1:], "images": [picture]}] * 6)
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(output_dir=str(tmp_path / "out"), max_length=None, bf16=False, **SMALL),
        train_dataset=rows,
        processing_class=made,
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"]) if lora else None,
    )
    check(trainer, handle)


def losses_of(settings: dict[str, Any], folder: Path, processes: int) -> list[float]:
    file = written(folder, settings)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--no-python"]
    start = start if processes > 1 else []
    start += [str(Path(sys.executable).with_name("duet")), "train", "--config", str(file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_PORT": "29641"}
    done = subprocess.run(start, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Saved in") == 1  # said once
    state = json.loads((Path(settings["output"]) / "checkpoint-4" / "trainer_state.json").read_text())
    return [row["loss"] for row in state["log_history"]]


def test_two_processes_equal_one_with_their_batch(tmp_path: Path) -> None:
    # every fifth record is text alone, so the processes meet batches with and without an image
    linear = {"method": "duet", "keep": 0.33, "schedule": "linear", "falling": 0.5}
    settings = plain(tmp_path, compression=linear, save={"every": 4, "keep": 1})
    two = losses_of(settings | {"batch_size": 1, "output": str(tmp_path / "two")}, tmp_path, 2)
    one = losses_of(settings | {"batch_size": 2, "output": str(tmp_path / "one")}, tmp_path, 1)
    assert len(two) == 4 and two == pytest.approx(one, rel=1e-4)
    assert len(list((tmp_path / "two" / "checkpoint-4").glob("rng_state_*.pth"))) == 2


def test_processes_leave_the_group_that_training_made_and_no_other(tmp_path: Path) -> None:
    def join(name: str) -> None:
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / name}", rank=0, world_size=1)

    with _parting():
        join("ours")
    assert not dist.is_initialized()
    join("theirs")
    try:
        with _parting():
            assert dist.is_initialized()
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("name", ["_get_train_sampler", "_load_from_checkpoint", "_save_checkpoint", "_get_output_dir"])
def test_the_trainer_still_has_the_private_method_that_duet_train_overrides(name: str) -> None:
    assert callable(getattr(Trainer, name, None))
    assert name in vars(DuetTrainer)
