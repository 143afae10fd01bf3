"""`duet bench --train`: its FLOPs, fields and table; times are read, never judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from typer.testing import CliRunner

from duet_vlm import Drop, DuetConfig
from duet_vlm.cli.main import app
from duet_vlm.inputs.shapes import shape_config
from duet_vlm.measuring import train_bench
from duet_vlm.measuring.settings import Setting
from duet_vlm.measuring.train_bench import benchmark
from duet_vlm.measuring.train_costs import step_flops
from duet_vlm.measuring.train_options import TrainOptions


def test_a_tiny_shape_has_the_flops_of_a_training_step(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    result = CliRunner().invoke(
        app,
        ["bench", "--train", "--shape", "tiny", "--layers", "4", "--tokens", "48", "--runs", "1", "--tune", "full",
         "--text-tokens", "20", "--answer-tokens", "8", "--dtype", "float32", "--device", "cpu", "--threads", "1",
         "--json", str(file)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "share of what FLOPs allow" in result.stdout and "full training" in result.stdout
    report = json.loads(file.read_text())
    assert list(report["tunes"]) == ["full"]
    found = report["tunes"]["full"]
    stock, (duet,) = found["stock"], found["settings"]
    assert duet["tokens_per_layer"] == [77, 77, 38, 0]

    def flops(visual: list[int], logits: int = 9) -> int:
        decoder = sum(3 * (2 * n * (4 * 64 * 64 + 3 * 64 * 128) + 2 * n * n * 64) for n in (v + 20 for v in visual))
        tower = 3 * (2 * 145 * (4 * 32 * 32 + 2 * 32 * 64) + 4 * 145 * 145 * 32)
        return decoder + tower + 3 * 2 * logits * 64 * 1000 + 3 * 2 * visual[0] * (32 * 64 + 64 * 64)

    assert stock["step_flops"] == flops([144] * 4) and duet["step_flops"] == flops([77, 77, 38, 0])
    assert found["all_logits"]["step_flops"] == flops([144] * 4, logits=164)
    assert found["all_logits"]["loss"] == pytest.approx(stock["loss"], abs=0.05)  # a step lies between
    assert duet["allowed"] == 1 - duet["step_flops"] / stock["step_flops"]
    assert duet["share"] == duet["saved"] / duet["allowed"]
    assert duet["saved"] == pytest.approx(1 - duet["step_ms"] / stock["step_ms"])
    assert duet["saved_range"][0] <= duet["saved_range"][1] and duet["paper"] is None
    assert 0 < duet["allowed"] < duet["allowed_full_depth"] < 1  # the tower weighs less in the whole model
    for row in (stock, duet, found["all_logits"]):
        assert all(row[f"{part}_ms"] > 0 for part in ("forward", "backward", "optimizer"))
    assert report["options"]["layers"] == 4 and report["options"]["answer_tokens"] == 8


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_every_way_to_tune_leaves_the_model_as_it_was(tune: str) -> None:
    if tune == "lora":
        pytest.importorskip("peft", reason="adapters are tested with the train extra, which brings peft")
    model = tiny.build()
    names, tower = [name for name, _ in model.named_parameters()], model.model.vision_tower
    before = [p.clone() for p in tower.parameters()]
    listed = [Setting("stock", None, DuetConfig()), Setting("hand", 9, DuetConfig(9, 2, drops=[Drop(2, 0.5)]))]
    options = TrainOptions(1, 2, 12, 4, (tune,), rank=2, checkpointing=True, dtype="float32")
    seen: list[str] = []
    found = benchmark(model, listed, options, seen.append)["tunes"][tune]
    assert len(seen) == train_bench.steps(listed, options)
    assert seen[0] == f"{tune}, stock, all logits, warm-up" and seen[-1] == f"{tune}, hand 9, run 1"
    assert found["settings"][0]["loss"] != found["stock"]["loss"]
    assert [name for name, _ in model.named_parameters()] == names and not model.training
    assert all(torch.equal(p, q) for p, q in zip(tower.parameters(), before, strict=True))
    left = [h for m in model.modules() for h in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    assert not [h for h in left if h.__module__.startswith("duet_vlm")]


def test_adapters_and_checkpointing_count() -> None:
    """Adapters spare the gradient of the weights; checkpointing does every layer's forward pass once more."""
    config = shape_config("tiny")
    counts = [64] * 8
    layer = 2 * 104 * (4 * 64 * 64 + 3 * 64 * 128)
    attention = 2 * 104 * 104 * 64
    full, lora = (step_flops(config, counts, 40, 33, tune) for tune in ("full", "lora"))
    assert full - lora == 8 * layer + 2 * 33 * 64 * 1000
    for tune, without in (("full", full), ("lora", lora)):
        assert step_flops(config, counts, 40, 33, tune, checkpointing=True) - without == 8 * (layer + attention)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tune", "prompts"], "tune 'prompts' is unknown: choose one of lora, full"),
        (["--answer-tokens", "60"], "answer_tokens 60 leave no question"),
    ],
)
def test_training_bench_refuses_what_it_cannot_measure(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", "--train", "--shape", "tiny", "--tokens", "48", *options])
    assert result.exit_code == 2 and message in result.stderr
