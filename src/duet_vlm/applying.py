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

    From here on, `generate` and `forward` merge visual tokens at the encoder (stage 1) and drop them at decoder layers
    (stage 2), as DUET-VLM does (arXiv 2602.18846; docs/method.md). What goes in and comes out keeps its shape: ids,
    masks, positions, labels, losses and logits are those of the full sequence.

    In training, and wherever an answer is part of the input, `labels=` says which tokens are answers: they rank
    nothing. Where the loss is computed outside the model, pass the same as `duet_labels=` to the model's forward.

    Args:
        model: a loaded model of a supported family (docs/families.md), or PEFT's wrapper around one; adapters may be
            loaded before or after.
        config: what to do. Without one, the settings in `model.config.duet` are used, which `save_pretrained` carries.
        tokenizer: the model's tokenizer or processor. It is needed where salient words are looked for, which is what
            `query="salient"` does, the default.
        full_logits: in training with labels, logits are computed only at the n places where a label is predicted.
            True gives them back as (B, S, V), with NaN at all other places; False gives the (n, V) that were
            computed, and saves the memory of the rest.

    Returns:
        The handle. Its `trace` tells what was kept, `use()` changes the settings, `remove()` makes the model stock
        again; as a context manager it removes itself.

    Raises:
        DuetError: the model is not supported, is no model, or is compressed already; `config` is no DuetConfig; or
            its settings do not fit the model. Nothing has been touched then.

    Example:
        >>> import duet_vlm
        >>> from duet_vlm.demo.model import load
        >>> from PIL import Image
        >>> model, processor = load()
        >>> picture, text = Image.new("RGB", (112, 112)), "USER: <image>\\nWhat color is the star? ASSISTANT:"
        >>> inputs = processor(images=picture, text=text, return_tensors="pt")
        >>> config = duet_vlm.DuetConfig.preset("duet", model=model, keep=0.33)
        >>> with duet_vlm.apply(model, config, tokenizer=processor) as handle:
        ...     answer = model.generate(**inputs, max_new_tokens=4)
        ...     print(handle.trace.samples[0].tokens_per_layer)
        [104, 104, 104, 104, 104, 104, 52, 52, 52, 0, 0, 0]
        >>> handle.applied
        False
    """
    model, is_given = model_of(model), config is not None
    settings = check_config(config) if is_given else saved_config(model.config)
    check_tokenizer(tokenizer)
    check_flag("full_logits", full_logits)
    if handle_of(model) is not None:
        raise DuetError(
            "this model, or a part that it shares with another one, is compressed already: call remove() on the first "
            "handle, which duet_vlm.handle_of(model) finds, before apply."
        )
    engine = Engine(model, Plan.of(model, settings, tokenizer), full_logits)
    if is_given:
        engine.write()
    return Duet(model, engine)
