"""What is handed to `apply`: the right kind of thing, or one sentence that names it, and the model as it was."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import zoo
from hostile import VALUES, one_sentence
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.arguments import check_config, check_tokenizer, config_of, model_of
from duet_vlm.demo.model import load

CONFIG = DuetConfig(dominant=9, contextual=3, drops=[Drop(2, 0.5)])


class Inside(nn.Module):
    """A model of someone's own around a model; with a config of its own or the model's."""

    def __init__(self, model: Any, config: Any):
        super().__init__()
        self.head, self.vlm, self.config = nn.Linear(2, 2), model, config


class Posing(LlavaForConditionalGeneration):
    """A model inside a model of its own class."""

    def __init__(self, model: Any):
        super().__init__(model.config)
        self.model = model


class Pipeline:
    """What `transformers.pipeline` gives: model and tokenizer side by side."""

    def __init__(self, model: Any):
        self.model, self.tokenizer = model, tiny.Words()


def untouched(model: Any) -> bool:
    hooked = any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    return not hooked and not hasattr(model.config, "duet")


MODELS: dict[str, tuple[Any, str]] = {
    "None": (lambda m: None, "None is no model: hand over a loaded model of transformers"),
    "name": (lambda m: "llava-hf/llava-1.5-7b-hf", "model 'llava-hf/llava-1.5-7b-hf' is a name: hand over a loaded"),
    "path": (lambda m: Path("my-llava"), "model 'my-llava' is a name"),
    "config": (lambda m: m.config, "object of type LlavaConfig is a model's config: hand over a loaded model"),
    "class": (lambda m: type(m), "the class LlavaForConditionalGeneration is no model: hand over a loaded model"),
    "config class": (lambda m: type(m.config), "the class LlavaConfig is no model"),
    "DuetConfig": (lambda m: CONFIG, "object of type DuetConfig is no model"),
    "model and processor": (lambda m: (m, tiny.Words()), "is no model: hand over a loaded model"),
    "processor": (lambda m: tiny.Words(), "object of type Words is no model"),
    "weights": (lambda m: {"lm_head.weight": torch.ones(2)}, "is no model"),
    "pipeline": (Pipeline, "object of type Pipeline holds a model: hand over that one, its .model"),
    "layers": (lambda m: nn.Linear(2, 2), "object of type Linear is no model"),
    "DataParallel": (nn.DataParallel, "DataParallel wraps a model: hand over the model inside, model.module"),
    "two wrappers": (lambda m: Inside(nn.DataParallel(m), None), "hand over the model inside, model.vlm.module"),
    "own module": (lambda m: Inside(m, {}), "type Inside wraps a model: hand over the model inside, model.vlm"),
    "own module with its config": (lambda m: Inside(m, m.config), "hand over the model inside, model.vlm"),
    "own model of the same class": (Posing, "object of type Posing wraps a model: .* model.model"),
    "compiled DataParallel": (lambda m: torch.compile(nn.DataParallel(m)), "model._orig_mod.module"),
    "adapters in DataParallel": (
        lambda m: nn.DataParallel(get_peft_model(m, LoraConfig(target_modules=["q_proj"]))), "inside, model.module"
    ),
    "text only": (lambda m: LlamaForCausalLM(LlamaConfig(**tiny.TEXT)), "models of type 'llama' are not supported"),
    "decoder alone": (lambda m: m.model.language_model, "models of type 'llama' are not supported"),
    "tower alone": (
        lambda m: CLIPVisionModel(CLIPVisionConfig(**tiny.VISION)), "'clip_vision_model' are not supported|is no model"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
def test_what_is_no_model_is_refused(case: str) -> None:
    model = tiny.build()
    make, message = MODELS[case]
    with pytest.raises(DuetError, match=message) as error:
        duet_vlm.apply(make(model), CONFIG, tokenizer=tiny.Words())
    one_sentence(error)
    assert untouched(model)


def test_distributed_wrappers_are_refused(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(str(tmp_path / "s"), 1),
                                         rank=0, world_size=1)  # fmt: skip
    try:
        wrapped = nn.parallel.DistributedDataParallel(tiny.build())
        with pytest.raises(DuetError, match=r"DistributedDataParallel wraps a model: .* model.module") as error:
            duet_vlm.apply(wrapped, CONFIG, tokenizer=tiny.Words())
        one_sentence(error)
    finally:
        torch.distributed.destroy_process_group()


PROMPTS = [PromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig]


@pytest.mark.parametrize("kind", PROMPTS, ids=lambda kind: kind.__name__)
def test_adapters_that_put_tokens_before_the_prompt_are_refused(kind: Any) -> None:
    shape = dict(num_layers=5, token_dim=32, num_attention_heads=4, num_virtual_tokens=4)
    model = tiny.build()
    wrapped = get_peft_model(model, kind(task_type="CAUSAL_LM", **shape))
    with pytest.raises(DuetError, match="puts tokens of its own before the prompt") as error:
        duet_vlm.apply(wrapped, CONFIG, tokenizer=tiny.Words())
    assert "model.get_base_model()" in one_sentence(error) and untouched(model)
    with duet_vlm.apply(wrapped.get_base_model(), CONFIG, tokenizer=tiny.Words()) as handle, torch.no_grad():
        model(**tiny.inputs())
        assert handle.trace is not None  # the advice can be followed


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_every_family_is_a_model(family: str) -> None:
    model = zoo.build(family)
    assert model_of(model) is model and config_of(model) is config_of(model.config) is model.config


def compiled_inside(model: Any) -> Any:
    model.model = torch.compile(model.model, backend="eager")
    return model


WRAPS = [torch.compile, compiled_inside, lambda m: get_peft_model(m, LoraConfig(target_modules=["q_proj"]))]


@pytest.mark.parametrize(
    "wrap", [WRAPS[0], pytest.param(WRAPS[1], marks=pytest.mark.long), WRAPS[2]], ids=["compiled", "inside", "adapters"]
)
def test_compiled_models_and_adapters_go_through(wrap: Any) -> None:
    model = tiny.build()
    with duet_vlm.apply(wrap(model), CONFIG, tokenizer=tiny.Words()) as handle, torch.no_grad():
        model(**tiny.inputs())
        assert handle.trace is not None and handle.trace.samples[0].drops


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
