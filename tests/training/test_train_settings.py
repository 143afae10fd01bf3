"""The YAML of `duet train`: every wrong setting in a sentence; and the budget of every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from saved import LAYERS, PATCHES, config
from train_data import plain, written

from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.budget import tokens_per_layer
from duet_vlm.training.arguments import training_arguments
from duet_vlm.training.fields import read
from duet_vlm.training.schedule import Budget, weaker
from duet_vlm.training.settings import TrainSettings, read_settings

LEAST: dict[str, Any] = {"model": "m", "data": "d.json", "output": "o", "compression": {"tokens": 64}}


def test_defaults_and_groups() -> None:
    settings = read(TrainSettings, LEAST | {"learning_rate": "2e-4", "lora": {"rank": 8}, "save": None})
    assert settings.data == ("d.json",) and settings.learning_rate == 2e-4  # YAML 1.1 reads 2e-4 as text
    assert settings.lora.rank == 8 and settings.lora.alpha == 128 and settings.save.every == 500
    assert settings.compression.tokens == 64 and settings.compression.method == "duet"


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"lerning_rate": 1}, "setting 'lerning_rate' is unknown: the nearest valid one is 'learning_rate'."),
        ({"lora": {"rang": 1}}, "setting 'lora.rang' is unknown: the nearest valid one is 'rank'."),
        ({"zzz": 1}, "setting 'zzz' is unknown: choose one of model, data,"),
        ({"model": None}, "setting model must be a text, not None."),
        ({"data": []}, "setting data must be a text or a list of texts, not []."),
        ({"batch_size": 0}, "setting batch_size must be a whole number of at least 1, not 0."),
        ({"batch_size": True}, "setting batch_size must be a whole number of at least 1, not True."),
        ({"learning_rate": "fast"}, "setting learning_rate must be a number above 0, not 'fast'."),
        ({"learning_rate": float("nan")}, "setting learning_rate must be a number above 0, not nan."),
        ({"warmup": 2}, "setting warmup must be a number of at least 0 and at most 1, not 2."),
        ({"bf16": "yes"}, "setting bf16 must be true or false, not 'yes'."),
        ({"train": "all"}, "setting train must be one of projector, lora, full, not 'all'."),
        ({"max_length": "long"}, "setting max_length must be a whole number of at least 8, or nothing, not 'long'."),
        ({"trainer": ["x"]}, "setting trainer must be a mapping of names to values, or nothing, not ['x']."),
        ({"lora": 3}, "lora must be a mapping of names to values, not 3."),
        ({"epochs": 1, "steps": 5}, "epochs 1 and steps 5 are both a length"),
        ({"compression": {}}, "there is no budget: give compression.tokens, an average"),
        (
            {"compression": {"tokens": 3, "keep": 0.5}},
            "compression.tokens 3 and compression.keep 0.5 are both a budget",
        ),
        (
            {"compression": {"method": "none", "keep": 0.5}},
            "method 'none' compresses nothing: leave out compression.tokens",
        ),
        ({"compression": {"method": "none", "settings": {"query": "all"}}}, "compresses nothing"),
        ({"compression": {"method": "settings"}}, "needs compression.settings"),
        ({"compression": {"method": "due", "keep": 0.5}}, "method 'due' is unknown"),
        ({"compression": {"tokens": 3, "schedule": "cubic"}}, "must be one of constant, linear, not 'cubic'."),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(TrainSettings, LEAST | changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_settings() -> None:
    for name in LEAST:
        with pytest.raises(ValueError, match=f"setting {name} is missing"):
            read(TrainSettings, {k: v for k, v in LEAST.items() if k != name})


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist: give a YAML file"):
        read_settings(tmp_path / "no.yaml")
    for text, message in (("a: [", "is no YAML at line 1"), ("- 1", "the settings must be a mapping"), ("", "mapping")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_settings(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "option,value,message",
    [
        ("wieght_decay", 0.1, "'trainer.wieght_decay' is unknown: the nearest valid one is 'weight_decay'."),
        ("learning_rate", 0.1, "'trainer.learning_rate' is set by 'learning_rate': give it there."),
        ("load_best_model_at_end", True, "'trainer.load_best_model_at_end' has no use in duet train"),
        ("eval_steps", 5, "'trainer.eval_steps' has no use in duet train"),
        ("optim", "no_such", "the Trainer refuses these settings"),
        ("max_grad_norm", "much", "setting trainer.max_grad_norm must be a number, not 'much'."),
        ("weight_decay", True, "setting trainer.weight_decay must be a number, not True."),
        ("dataloader_pin_memory", 1, "setting trainer.dataloader_pin_memory must be true or false, not 1."),
    ],
)
def test_options_of_the_trainer(option: str, value: Any, message: str, tmp_path: Path) -> None:
    settings = read(TrainSettings, LEAST | {"output": str(tmp_path), "bf16": False, "trainer": {option: value}})
    with pytest.raises(ValueError) as caught:
        training_arguments(settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_settings_reach_the_trainer(tmp_path: Path) -> None:
    given = plain(tmp_path, trainer={"weight_decay": 0.25, "use_cpu": True}, accumulation=3, warmup=0.5, seed=11)
    arguments = training_arguments(read_settings(written(tmp_path, given)))
    assert (arguments.weight_decay, arguments.gradient_accumulation_steps, arguments.seed) == (0.25, 3, 11)
    assert (arguments.max_steps, arguments.warmup_steps, arguments.save_total_limit) == (4, 0.5, 9)


def test_compression_for_a_model() -> None:
    made = read(TrainSettings, LEAST | {"compression": {"keep": 0.33, "settings": {"query": "last"}}})
    full = made.compression.config(config())
    assert full.query == "last" and sum(tokens_per_layer(full, PATCHES, LAYERS)) == pytest.approx(0.33 * PATCHES * 4, 4)
    by_hand = {"dominant": 30, "contextual": 4, "drops": [{"layer": 2, "keep": 0.5}]}
    made = read(TrainSettings, LEAST | {"compression": {"method": "settings", "settings": by_hand}})
    assert made.compression.config(config()) == DuetConfig(dominant=30, contextual=4, drops=[Drop(2, 0.5)])
    for wrong, message in (
        ({"dominand": 3}, "setting 'dominand' is unknown: a DuetConfig has dominant, which is the nearest name"),
        ({"drops": [{"layr": 3}]}, "has an unknown 'layr'"),
        ({"drops": 5}, "drops 5 must be a list of drops"),
        ({"keep": 0.5}, "setting 'keep' is unknown"),
        ({"name": "duet"}, "setting 'name' is unknown"),
        ({"model": "x"}, "setting 'model' is unknown"),
    ):
        for method in ({"method": "settings"}, {"method": "duet", "keep": 0.33}):
            made = read(TrainSettings, LEAST | {"compression": method | {"settings": wrong}})
            with pytest.raises(DuetError, match=message):
                made.compression.config(config())


@pytest.mark.parametrize(
    "full",
    [
        DuetConfig(dominant=85, contextual=17, drops=[Drop(16, 0.5), Drop(24, 0.0)]),
        DuetConfig(dominant=64, merging="divprune"),
        DuetConfig(dominant=64, contextual=8, rest=True),
        DuetConfig(drops=[Drop(2, 0.25, rank_at=1)], query="last"),
    ],
)
def test_a_linear_budget_falls_in_a_straight_line(full: DuetConfig) -> None:
    budget, steps = Budget(full, 576, 32, falling=0.5), 40
    average = [budget.average(budget.at(step, steps)) for step in range(steps)]
    end = budget.average(full)
    for step, got in enumerate(average):
        assert got == pytest.approx(576 + min(1.0, step / 20) * (end - 576), abs=1.5), step
    assert average[0] == 576 and budget.at(0, steps) == DuetConfig()
    assert all(budget.at(step, steps) == full for step in range(20, steps))


def test_a_constant_budget_is_the_config_at_every_step() -> None:
    full = DuetConfig(dominant=64)
    assert all(Budget(full, 576, 32).at(step, 10) == full for step in range(10))


def test_budgets_of_models_whose_images_differ() -> None:
    full = DuetConfig(dominant=0.25, contextual=0.05, drops=[Drop(14, 0.5)])
    half = weaker(full, 0.5, None)
    assert (half.dominant, half.contextual, half.drops) == (pytest.approx(0.625), 0.025, (Drop(14, 0.75),))
    for refused in (DuetConfig(dominant=30), DuetConfig(dominant=0.5, contextual=3), DuetConfig(downsample=(7, 7))):
        with pytest.raises(ValueError, match="a linear schedule"):
            Budget(refused, None, 28, falling=0.3)


def test_the_examples_are_settings() -> None:
    folder = Path(__file__).parents[2] / "examples"
    files = [folder / "train.yaml", *folder.glob("training/llava-*.yaml")]
    assert len(files) == 3
    for file in files:
        settings = read_settings(file)
        assert settings.compression.method == "duet" and settings.trainer in (None, {"weight_decay": 0.0})
