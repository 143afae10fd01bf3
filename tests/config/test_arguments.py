"""What is handed to `apply` beside the model: the right kind of thing, or one sentence that names it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from apply_cases import CONFIG, untouched
from hostile import VALUES, one_sentence
from torch import nn
from transformers import (
    AutoConfig,
    LlamaConfig,
)

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.arguments import check_config, check_tokenizer
from duet_vlm.demo.model import load

CONFIGS: list[tuple[Any, str]] = [
    ({"dominant": 9}, "config {'dominant': 9} is no DuetConfig: make one of it with DuetConfig.from_dict"),
    ("duet", r"config 'duet' is no DuetConfig: make one with DuetConfig.preset\('duet', model=model, keep=0.3\)"),
    ("visionzip+fastv", r"make one with DuetConfig.preset\('visionzip.fastv'"),
    ("settings.json", "config 'settings.json' is no DuetConfig: give a DuetConfig, for example"),
    (5, "config 5 is no DuetConfig: give a DuetConfig, for example DuetConfig.preset"),
    (0.3, "config 0.3 is no DuetConfig"),
    (False, "config False is no DuetConfig"),
    ([], r"config \[\] is no DuetConfig"),
    ([Drop(2, 0.5)], r"is no DuetConfig: give them as DuetConfig\(drops=\[...\]\)"),
    (Drop(2, 0.5), r"object of type Drop is no DuetConfig: give them as DuetConfig\(drops"),
    (DuetConfig, r"the class DuetConfig is no DuetConfig: call it"),
    (LlamaConfig(), "object of type LlamaConfig is no DuetConfig"),
    (SimpleNamespace(**CONFIG.to_dict()), "object of type SimpleNamespace is no DuetConfig"),
]


@pytest.mark.parametrize(("config", "message"), CONFIGS, ids=[m[:40] for _, m in CONFIGS])
def test_what_is_no_config_is_refused(config: Any, message: str) -> None:
    model = tiny.build()
    with pytest.raises(DuetError, match=message) as error:
        duet_vlm.apply(model, config, tokenizer=tiny.Words())
    one_sentence(error)
    assert untouched(model)


TOKENIZERS: list[tuple[Any, str]] = [
    ("llava", "tokenizer 'llava' is a name: pass the model's tokenizer or processor"),
    (b"llava", "tokenizer b'llava' is a name"),
    (Path("llava"), "is a name"),
    (5, "tokenizer 5 has no method decode"),
    (tiny.Words, "tokenizer the class Words is no tokenizer"),
    (nn.Linear(2, 2), "tokenizer an object of type Linear is no tokenizer"),
    (CONFIG, "object of type DuetConfig has no method decode"),
    ([tiny.Words()], "has no method decode"),
    (SimpleNamespace(tokenizer=None), "has no method decode"),
    (SimpleNamespace(tokenizer="llava"), "has no method decode"),
    (SimpleNamespace(decode="text"), "has no method decode"),
    (SimpleNamespace(decode=lambda ids: ""), r"cannot decode \(.* unexpected keyword"),
    (SimpleNamespace(decode=lambda ids, **_: ids), "decodes to no text"),
]


@pytest.mark.parametrize(("tokenizer", "message"), TOKENIZERS, ids=[m for _, m in TOKENIZERS])
def test_what_cannot_decode_is_refused(tokenizer: Any, message: str) -> None:
    model = tiny.build()
    for config in (CONFIG, DuetConfig(dominant=9)):  # whether or not words are needed
        with pytest.raises(DuetError, match=message) as error:
            duet_vlm.apply(model, config, tokenizer=tokenizer)
        one_sentence(error)
    assert untouched(model)


def test_a_tokenizer_of_another_library_is_refused() -> None:
    tokens = load()[1].tokenizer
    check_tokenizer(tokens)
    with pytest.raises(DuetError, match=r"object of type Tokenizer cannot decode \(") as error:
        check_tokenizer(tokens.backend_tokenizer)
    one_sentence(error)


def test_any_value_for_any_argument_is_one_sentence() -> None:
    model = tiny.build()
    for name, value in VALUES.items():
        for arguments in ((value, CONFIG, None), (model, value, None), (model, CONFIG, value)):
            if value is None and arguments[2] is None and arguments[0] is model:
                continue
            with pytest.raises(DuetError) as error:
                duet_vlm.apply(arguments[0], arguments[1], tokenizer=arguments[2])
            assert one_sentence(error), name
    assert untouched(model)


@pytest.mark.parametrize("value", [None, 1, "no", torch.tensor(True)], ids=repr)
def test_full_logits_is_true_or_false(value: Any) -> None:
    model = tiny.build()
    with pytest.raises(DuetError, match=r"full_logits .* must be True or False") as error:
        duet_vlm.apply(model, CONFIG, tokenizer=tiny.Words(), full_logits=value)
    one_sentence(error)
    assert untouched(model)


def test_use_can_check_its_config_alike() -> None:
    assert check_config(CONFIG) is CONFIG
    with pytest.raises(DuetError, match="config None is no DuetConfig"):
        check_config(None)


SAVED: list[tuple[Any, str]] = [
    ([1, 2], r"not from \[1, 2\]"),
    (5, "not from 5"),
    (True, "not from True"),
    (False, "not from False"),
    ("duet", "not from 'duet'"),
    ({"dominant": 9, "warp": 2}, "setting 'warp' is unknown"),
    ({"dominant": {"of": {"of": 3}}}, "dominant {'of': {'of': 3}} must be an int"),
    ({"drops": None}, "drops None must be a list of drops"),
    ({"drops": [{"layer": 2}]}, "has no keep"),
    ({"drops": [{"layer": 2, "keep": 0.5, "at": 1}]}, "has an unknown 'at'"),
    ({"language": ["en"]}, r"language \['en'\] must be"),
    ({"merging": "x" * 3000}, "merging 'xxx"),
    ({"proportional": True, "dominant": 9}, "proportional weighs merged tokens"),
]


@pytest.mark.parametrize(("saved", "message"), SAVED, ids=[m for _, m in SAVED])
def test_settings_of_a_checkpoint_that_cannot_be_used(saved: Any, message: str, tmp_path: Path) -> None:
    tiny.build().config.save_pretrained(tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(data | {"duet": saved}))
    model = tiny.build()
    model.config.duet = AutoConfig.from_pretrained(tmp_path).duet
    with pytest.raises(DuetError, match=message) as error:
        duet_vlm.apply(model, tokenizer=tiny.Words())
    text = one_sentence(error)
    assert text.startswith("config.duet in the model's saved config cannot be used (")
    assert text.endswith("): pass a DuetConfig to apply instead.")
    with duet_vlm.apply(model, CONFIG, tokenizer=tiny.Words()), torch.no_grad():
        model(**tiny.inputs())  # the advice can be followed
