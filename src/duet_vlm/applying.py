"""The one verb: a config onto a model."""

from __future__ import annotations

from typing import Any

from .config import DuetConfig
from .engine import Engine
from .errors import DuetError
from .handle import Duet, handle_of
from .plan import Plan


def apply(
    model: Any, config: DuetConfig | None = None, *, tokenizer: Any = None, full_logits: bool = True
) -> Duet:
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
        DuetError: an unsupported model, one that is compressed already, or settings that do not fit it.
    """
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    given = config is not None
    if config is None:
        saved = getattr(model.config, "duet", None)
        if saved is None:
            raise DuetError("there is no config: pass a DuetConfig, or load a model whose config.duet was saved.")
        config = DuetConfig.from_dict(saved)
    if handle_of(model) is not None:
        raise DuetError(
            "this model, or a part that it shares with another one, is compressed already: call remove() on the first "
            "handle, which duet_vlm.handle_of(model) finds, before apply."
        )
    engine = Engine(model, Plan.of(model, config, tokenizer), full_logits)
    if given:
        engine.write()
    return Duet(model, engine)
