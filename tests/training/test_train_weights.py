"""What `duet train` trains and saves on tiny models, in which order, and what it logs of the schedule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from train_data import plain, run_of
from train_runs import LINEAR, trained
from transformers import AutoModelForImageTextToText, AutoProcessor

import duet_vlm
from duet_vlm.training import command
from duet_vlm.training.trainer import GroupedByLength


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
