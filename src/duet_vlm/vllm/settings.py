"""The settings of a model that vLLM serves: what `duet` in its config says, in full or in short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.registry import called
from ..errors import DuetError, shown
from ..families import family_of
from ..presets import DuetConfig
from . import PREFIX, SERVED

_SHORT = ("preset", "tokens", "keep", "grid")
GROUPS = "kv_groups"


@dataclass(frozen=True)
class Served:
    """What is to be served.

    Attributes:
        config: the compression.
        kv_groups: whether layers after a drop have KV blocks of their own, as few as their tokens need.
    """

    config: DuetConfig
    kv_groups: bool = False


def read(hf_config: Any) -> Served:
    """The settings in `hf_config.duet`: what `DuetConfig.to_dict` gives, or a preset's name and a budget.

    The short form has `preset` and one of `tokens` and `keep`, besides whatever `DuetConfig.preset` takes. Both forms
    may have `kv_groups`.

    Args:
        hf_config: the transformers config of a model.

    Raises:
        DuetError: settings that are none.

    Example:
        >>> from types import SimpleNamespace
        >>> served = read(SimpleNamespace(duet={"drops": [{"layer": 6, "keep": 0.5}], "kv_groups": True}))
        >>> served.config.drops, served.kv_groups
        ((Drop(layer=6, keep=0.5, rank_at=None),), True)
    """
    given = hf_config.duet
    if not isinstance(given, Mapping):
        raise DuetError(
            f"duet {shown(given)} in the model's config is no mapping: give settings, as in "
            '{"preset": "duet", "keep": 0.33}.'
        )
    fields = dict(given)
    groups = fields.pop(GROUPS, False)
    if not isinstance(groups, bool):
        raise DuetError(f"kv_groups {shown(groups)} must be true or false.")
    if not any(name in fields for name in _SHORT):
        return Served(DuetConfig.from_dict(fields), groups)
    if "preset" not in fields:
        raise DuetError(f'duet {shown(given)} has a budget and no preset: add a method, as in "preset": "duet".')
    name = fields.pop("preset")
    return Served(DuetConfig.preset(name, model=hf_config, **fields), groups)


def choose(model_config: Any, architecture: str) -> None:
    """Have a model served by our class, with its settings in full; what vLLM calls when it has read the config.

    Args:
        model_config: vLLM's `ModelConfig`.
        architecture: of the model, as its config names it.

    Raises:
        DuetError: settings that are none, or do not fit the model, or a model that is not served with them.
    """
    hf_config = model_config.hf_config
    if architecture not in SERVED:
        raise DuetError(
            f"{architecture} is not compressed in vLLM: take `duet` out of the model's config or of --hf-overrides, or "
            "serve it by transformers, as `duet serve --engine transformers` does."
        )
    served = read(hf_config)
    check_fits(served.config, hf_config)
    hf_config.duet = served.config.to_dict() | ({GROUPS: True} if served.kv_groups else {})
    hf_config.architectures = [PREFIX + architecture]
    model_config.model_arch_config = model_config.get_model_arch_config()


def check_fits(config: DuetConfig, hf_config: Any) -> None:
    """Raises DuetError for settings that do not fit a model, or that vLLM has no way to do."""
    family = family_of(hf_config)
    if config.downsample is not None:
        raise DuetError("downsample is not possible in vLLM, whose tower has one size of image: use another stage 1.")
    if config.pixelprune is not None:
        raise DuetError(
            "pixelprune is not possible in vLLM, where an image's size alone says how many tokens it has: serve it by "
            "transformers, as `duet serve --engine transformers` does."
        )
    if config.proportional:
        raise DuetError("proportional is not possible in vLLM, whose attention takes no mask: leave it out.")
    if config.coverage is not None:
        raise DuetError(
            f"coverage {config.coverage:g} is not possible in vLLM, which must know how many tokens an image keeps "
            "before it has seen it: give a budget, or serve it by transformers."
        )
    if config.history is not None:
        raise DuetError(
            f"history {config.history:g} is not possible in vLLM, where an image keeps as many tokens wherever it "
            "stands: leave it out, or serve it by transformers."
        )
    if config.fallback is not None:
        raise DuetError("fallback is not possible in vLLM, which reads a prompt once: leave it out.")
    if config.audio_keep is not None:
        raise DuetError("audio_keep is not possible in vLLM, where sound is not compressed: leave it out.")
    if config.positions == "keep" and config.dominant is not None and not family.dynamic:
        raise DuetError(
            f"positions 'keep' is not possible with stage 1 for {hf_config.model_type} in vLLM, whose prompts hold "
            "what stage 1 retains and nothing else: use 'renumber' or 'auto'."
        )
    if config.dominant is not None and config.stage1_method.whole_videos and family.whole_videos:
        raise DuetError(
            f"merging {called(config.merging)} is not possible for {hf_config.model_type} in vLLM, where all frames of "
            "a video keep as many tokens: use another stage 1, or serve it by transformers."
        )
    tower = hf_config.vision_config.model_type
    if hf_config.model_type == "llava" and tower != "clip_vision_model":
        raise DuetError(f"a LLaVA with a {tower} is not compressed in vLLM: it needs a CLIP tower.")
    family.check(hf_config, config)
    layers = hf_config.get_text_config().num_hidden_layers
    for drop in config.drops:
        if drop.layer >= layers:
            raise DuetError(
                f"drop layer {drop.layer} is not possible: this model has {layers} decoder layers, "
                f"so choose 1 to {layers - 1}."
            )
