"""Which objects `apply` takes for a model: every family, adapters and compiled ones; all else is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import zoo
from apply_cases import CONFIG, untouched
from hostile import one_sentence
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

import duet_vlm
from duet_vlm import DuetError
from duet_vlm.config.arguments import config_of, model_of


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
