"""The model of a run: loaded, with what is trained set free and the rest frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import DuetError
from ..families import family_of
from ..inputs.checkpoints import read_weights
from .settings import Lora, TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def load(settings: TrainSettings, sharded: bool) -> Any:
    """A model in training mode, with gradients where the settings ask for them.

    Frozen weights are in bfloat16 where the run is, trained ones in float32: steps of a small learning rate vanish in
    bfloat16. Sharding wants one dtype for all, so there everything is in float32 unless `dtype` says otherwise.

    Args:
        settings: what is trained.
        sharded: whether FSDP or DeepSpeed ZeRO-3 will split the weights.
    """
    frozen = "bfloat16" if settings.bf16 and settings.train != "full" and not sharded else "float32"
    model = freed(read_weights(settings.model, settings.dtype or frozen, "cpu").train(), settings)
    if settings.dtype is None:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model


def freed(model: Any, settings: TrainSettings) -> Any:
    """The model with gradients, and adapters, where the settings ask for them.

    Raises:
        ValueError: see `release` and `adapted`.
    """
    release(model, settings)
    if settings.train == "lora":
        model = adapted(model, settings.lora)
        if settings.tower == "trained":
            family = family_of(model.config)
            for name, parameter in model.named_parameters():
                if family.is_tower(name) and parameter.is_floating_point():
                    parameter.requires_grad_(True)
    return model


def release(model: PreTrainedModel, settings: TrainSettings) -> None:
    """Set `requires_grad` of every parameter for the stage to train.

    Raises:
        ValueError: a model without a projector of a known name.
    """
    family = family_of(model.config)
    names = [name for name, _ in model.named_parameters()]
    if settings.train != "full" and not any(map(family.is_projector, names)):
        raise DuetError(
            f"this model has no projector of a known name ({', '.join(family.projectors)}): set train: full, or "
            "train: lora with lora.projector: false."
        )
    for name, parameter in model.named_parameters():
        if family.is_projector(name):
            parameter.requires_grad_(settings.train != "lora")
        elif family.is_tower(name):
            parameter.requires_grad_(settings.tower == "trained" and settings.train != "lora")
        else:
            parameter.requires_grad_(settings.train == "full")


def adapted(model: Any, lora: Lora) -> Any:
    """The model with adapters on its language model, and its projector trained in full where asked for.

    Raises:
        ValueError: targets that no layer of the model has.
    """
    from peft import LoraConfig, get_peft_model

    family, modules = family_of(model.config), dict(model.named_modules())
    targets: Any
    if lora.targets is None:
        inside = [n for n in modules if not family.is_tower(n) and not family.is_projector(n)]
        targets = [n for n in inside if n.split(".")[-1] in TARGETS]
    else:
        targets = list(lora.targets) if len(lora.targets) > 1 else lora.targets[0]
    whole = sorted({n.split(".")[-1] for n in modules} & set(family.projectors)) if lora.projector else None
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets,  # type: ignore[arg-type]
        modules_to_save=whole or None,
    )  # fmt: skip
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise DuetError(
            f"lora.targets {', '.join(lora.targets or TARGETS)!r} names no layer of this model that adapters can be "
            "put on: give names of linear layers, such as q_proj, or one regular expression."
        ) from error


def count_trained(model: nn.Module) -> tuple[int, int]:
    """Parameters with a gradient, and all."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes)


def merge_adapters(model: Any) -> Any:
    """A model whose adapters are added into its weights, in the dtype of its trained weights."""
    model = model.merge_and_unload()
    if any(p.dtype == torch.bfloat16 for p in model.parameters()):
        model = model.to(torch.bfloat16)
    return model
