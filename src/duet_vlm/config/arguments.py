"""What `apply`, `Duet.use` and presets are handed: the right kind of thing, or one sentence, before anything else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import DuetError, reason, shown
from .drops import Drop
from .methods import stages
from .settings import Settings


def model_of(model: Any) -> Any:
    """The model to compress: the one given, or the one inside PEFT's wrapper.

    Raises:
        DuetError: anything but a model of transformers, a wrapper around one, or adapters that prompts go through.
    """
    if hasattr(model, "get_base_model") and not isinstance(model, type):
        for adapter in getattr(model, "peft_config", {}).values():
            if getattr(adapter, "is_prompt_learning", False):
                raise DuetError(
                    f"PEFT's {adapter.peft_type.value} puts tokens of its own before the prompt, which hides where the "
                    "image is: use adapters that change weights, such as LoRA, or compress model.get_base_model()."
                )
        model = model.get_base_model()
    if not _is_model(model):
        raise DuetError(f"{_refusal(model)}.")
    return model


def config_of(model: Any) -> Any:
    """The transformers config of a model, or that config itself.

    Raises:
        DuetError: neither.
    """
    config = getattr(model, "config", model)
    if isinstance(model, type) or not _is_model_config(config):
        raise DuetError(f"{_refusal(model)}, or its config.")
    return config


def check_config(config: Any) -> Settings:
    """The config, if it is one.

    Raises:
        DuetError: anything else, with what makes a DuetConfig of it.
    """
    if isinstance(config, Settings):
        return config
    make = "give a DuetConfig, for example DuetConfig.preset('duet', model=model, keep=0.3)"
    if isinstance(config, Mapping):
        make = "make one of it with DuetConfig.from_dict(...)"
    elif isinstance(config, str) and _is_method(config):
        make = f"make one with DuetConfig.preset({config!r}, model=model, keep=0.3)"
    elif isinstance(config, Drop) or (isinstance(config, (list, tuple)) and any(isinstance(d, Drop) for d in config)):
        make = "give them as DuetConfig(drops=[...])"
    elif isinstance(config, type) and issubclass(config, Settings):
        make = "call it, as in DuetConfig(dominant=64)"
    raise DuetError(f"config {shown(config)} is no DuetConfig: {make}.")


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what cannot say which text token ids stand for; None is left to whoever needs one.

    Raises:
        DuetError: a name, a class, a model, or anything without a working `decode`.
    """
    from torch import nn

    if tokenizer is None:
        return
    decode = getattr(tokenizer_of(tokenizer), "decode", None)
    why, cause = "has no method decode", None
    if isinstance(tokenizer, (str, bytes, os.PathLike)):
        why = "is a name"
    elif isinstance(tokenizer, (type, nn.Module)):
        why = "is no tokenizer"
    elif callable(decode):
        try:
            if isinstance(decode([], skip_special_tokens=False, clean_up_tokenization_spaces=False), str):
                return
            why = "decodes to no text"
        except Exception as error:  # it may be anything
            why, cause = f"cannot decode ({reason(error)})", error
    raise DuetError(
        f"tokenizer {shown(tokenizer)} {why}: pass the model's tokenizer or processor, "
        "for example AutoProcessor.from_pretrained(...)."
    ) from cause


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer in a processor; what has none is taken for a tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def _is_model(value: Any) -> bool:
    core = getattr(value, "base_model", None)
    return (
        not isinstance(value, type)
        and _is_model_config(getattr(value, "config", None))
        and core is not None
        and not hasattr(core, getattr(core, "base_model_prefix", ""))  # else a wrapper passes for a model
        and callable(getattr(core, "get_decoder", None))
    )


def _is_model_config(value: Any) -> bool:
    return isinstance(getattr(value, "model_type", None), str) and callable(getattr(value, "get_text_config", None))


def _is_method(name: str) -> bool:
    try:
        return bool(stages(name))
    except DuetError:
        return False


def _refusal(value: Any) -> str:
    """Why this is no model, and what to hand over."""
    from torch import nn

    wanted = "hand over a loaded model of transformers"
    if isinstance(value, type):
        return f"{shown(value)} is no model: {wanted}, from its from_pretrained"
    if isinstance(value, (str, os.PathLike)):
        return f"model {shown(str(value))} is a name: {wanted}, as from AutoModelForImageTextToText.from_pretrained"
    if isinstance(value, nn.Module):
        for path, inner in value.named_modules():
            if path and (_is_model(inner) or hasattr(inner, "get_base_model")):
                return f"{shown(value)} wraps a model: hand over the model inside, model.{path}"
    elif _is_model(getattr(value, "model", None)):
        return f"{shown(value)} holds a model: hand over that one, its .model"
    elif _is_model_config(value):
        return f"{shown(value)} is a model's config: {wanted}"
    return f"{shown(value)} is no model: {wanted}, such as LlavaForConditionalGeneration"
