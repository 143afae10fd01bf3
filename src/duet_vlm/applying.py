"""The one verb: a config onto a model."""

from __future__ import annotations

from typing import Any

from .arguments import check_config, check_tokenizer, model_of, saved_config
from .config import DuetConfig
from .engine import Duet
from .errors import DuetError
from .families import decoder_of, family_of
from .families.family import check_downsampling
from .proportional import check_attention
from .values import check_flag
from .words import check_language


def apply(
    model: Any, config: DuetConfig | None = None, *, tokenizer: Any = None, full_logits: bool = True
) -> Duet:
    """Compress the visual tokens of a stock transformers model, in place, until the returned handle is removed.

    Args:
        model: a supported model; adapters may be loaded before or after.
        config: what to do; without one, `model.config.duet` is read, which `save_pretrained` carries.
        tokenizer: the model's tokenizer or processor, needed to find salient words.
        full_logits: in training with labels, logits and loss are computed only where a label is predicted. True gives
            them back as (B, S, V), not a number elsewhere; False leaves the (n, V) that were computed, which saves
            that memory.

    Raises:
        DuetError: an unsupported model or something that is none, one that is compressed already, no DuetConfig, or
            settings that do not fit the model.
    """
    model, given = model_of(model), config is not None
    config = check_config(config) if given else saved_config(model.config)
    check_tokenizer(tokenizer)
    check_flag("full_logits", full_logits)
    check(model, config, tokenizer)
    _check_free(model)
    duet = Duet(model, config, tokenizer, full_logits)
    if given:
        model.config.duet = config.to_dict()
        duet.wrote_config = True
    return duet


def check(model: Any, config: DuetConfig, tokenizer: Any) -> None:
    """Refuse what cannot work, before anything is touched."""
    family = family_of(model.config)
    if config.downsample is not None:
        check_downsampling(family, model.config)
    family.check(model.config, config)
    if config.proportional:
        check_attention(decoder_of(model))
    layers = len(decoder_of(model).layers)
    for drop in config.drops:
        if drop.layer >= layers:
            raise DuetError(
                f"drop layer {drop.layer} is not possible: this model has {layers} decoder layers, "
                f"so choose 1 to {layers - 1}."
            )
    if config.ranks and config.query == "salient" and tokenizer is None:
        raise DuetError(
            "query 'salient' needs the words of the question: pass tokenizer= (or the processor) to apply, "
            "or choose query 'all' or 'last'."
        )
    if config.ranks and config.query == "salient":
        check_language(config.language)


def _check_free(model: Any) -> None:
    for module in (model, model.base_model):
        for hook in module._forward_pre_hooks.values():
            if isinstance(getattr(hook, "__self__", None), Duet):
                raise DuetError("this model is compressed already: call remove() on the first handle before apply.")
