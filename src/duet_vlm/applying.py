"""The one verb: a config onto a model."""

from __future__ import annotations

from typing import Any

from .config.arguments import check_config, check_tokenizer, model_of
from .config.values import check_flag
from .engine.handle import Duet, handle_of
from .engine.hooks import Engine
from .engine.plan import Plan
from .errors import DuetError
from .presets import DuetConfig, saved_config


def apply(model: Any, config: DuetConfig | None = None, *, tokenizer: Any = None, full_logits: bool = True) -> Duet:
    """Compress the visual tokens of a stock transformers model, in place, until the returned handle is removed.

    In training, and wherever an answer is part of the input, `labels=` says which tokens are answers: they rank
    nothing. Where the loss is computed outside the model, pass the same as `duet_labels=` to the model's forward.

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
    settings = check_config(config) if given else saved_config(model.config)
    check_tokenizer(tokenizer)
    check_flag("full_logits", full_logits)
    if handle_of(model) is not None:
        raise DuetError(
            "this model, or a part that it shares with another one, is compressed already: call remove() on the first "
            "handle, which duet_vlm.handle_of(model) finds, before apply."
        )
    engine = Engine(model, Plan.of(model, settings, tokenizer), full_logits)
    if given:
        engine.write()
    return Duet(model, engine)
