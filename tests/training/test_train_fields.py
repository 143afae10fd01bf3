"""The formatter of refused settings: which of several faults is told, how it is named, and what may change later."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from duet_vlm import DuetError
from duet_vlm.training.fields import must_be, read
from duet_vlm.training.settings import FREE, TrainSettings

LEAST: dict[str, Any] = {"model": "m", "data": "d.json", "output": "o", "compression": {"tokens": 64}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # a misspelt name is told before the same one as missing, and before wrong values
        (
            {"modle": "m", "data": "d", "output": "o", "seed": -1, "compression": {"keep": 0.5}},
            "setting 'modle' is unknown: the nearest valid one is 'model'.",
        ),
        (LEAST | {"seed": -1, "epochs": 1, "steps": 1}, "setting seed must be a whole number of at least 0, not -1."),
        (LEAST | {5: 1}, "setting '5' is unknown: choose one of model, data,"),
        (LEAST | {"save": {True: 1}}, "setting 'save.True' is unknown: choose one of every, keep."),
        (LEAST | {datetime.date(2026, 1, 2): 1}, "setting '2026-01-02' is unknown"),
        (LEAST | {"data": ["a", 3]}, "setting data must be a text or a list of texts, not ['a', 3]."),
        (LEAST | {"data": ["a", " "]}, "setting data must be a text or a list of texts, not ['a', ' ']."),
        (LEAST | {"data": {"a": 1}}, "setting data must be a text or a list of texts, not {'a': 1}."),
        (LEAST | {"data": None}, "setting data must be a text or a list of texts, not None."),
        (LEAST | {"model": " "}, "setting model must be a text, not ' '."),
        (LEAST | {"trainer": {5: 1}}, "setting trainer must be a mapping of names to values, or nothing, not {5: 1}."),
        (LEAST | {"save": {"keep": "2"}}, "setting save.keep must be a whole number of at least 1, not '2'."),
        (LEAST | {"batch_size": 2.0}, "setting batch_size must be a whole number of at least 1, not 2.0."),
        (LEAST | {"learning_rate": float("inf")}, "setting learning_rate must be a number above 0, not inf."),
        (
            LEAST | {"warmup": 10**400},
            "setting warmup must be a number of at least 0 and at most 1, not about 10**400.",
        ),
        (LEAST | {"compression": 3}, "setting compression must be a mapping of names to values, not 3."),
        (LEAST | {"dtype": "half"}, "setting dtype must be one of float32, bfloat16, or nothing, not 'half'."),
        ([1], "the settings must be a mapping of names to values, not [1]."),
        (None, "the settings must be a mapping of names to values, not None."),
    ],
)
def test_what_is_told(data: Any, message: str) -> None:
    with pytest.raises(DuetError) as caught:
        read(TrainSettings, data)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_settings_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read(TrainSettings, LEAST).seed = 3


def test_what_may_change_is_not_in_a_checkpoints_stamp() -> None:
    data = LEAST | {"lora": {"rank": 8, "targets": "q_proj"}, "trainer": {"weight_decay": 0.5}}
    fixed = read(TrainSettings, data).model_dump(mode="json", exclude=FREE)
    assert not {"output", "save", "log_every", "report", "workers"} & fixed.keys()
    assert fixed["lora"] == {"rank": 8, "alpha": 128.0, "dropout": 0.0, "targets": ["q_proj"], "projector": True}
    assert fixed["data"] == ["d.json"] and fixed["trainer"] == {"weight_decay": 0.5}
    # every other setting is there
    assert fixed.keys() == TrainSettings.model_fields.keys() - {"output", "save", "log_every", "report", "workers"}
    changed = {"output": "p", "save": {"every": 3}, "log_every": 2, "report": "none", "workers": 0}
    again = read(TrainSettings, data | changed | {"lora": data["lora"] | {"merge": False}})
    assert again.model_dump(mode="json", exclude=FREE) == fixed


def test_sentences_from_types() -> None:
    assert must_be(int | None) == "a whole number, or nothing"
    assert must_be(str | list[str]) == "a text or a list" and must_be(bool) == "true or false"
    assert must_be(dict[str, Any] | str) == "a mapping of names to values or a text"
