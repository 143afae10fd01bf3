"""`fallback`: where the first token of a compressed prompt is unsure, the prompt is read again with all visual tokens.

Whether a first token is unsure is said by the lead of its probability over the second's: compressed models that differ
from the full one mostly differ where it is small. The second reading is the stock model's, so a prompt alone is
answered as the stock model answers it, bit for bit. In a batch all rows are read again, and the unsure ones are taken
from there.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import host
from ..errors import DuetError
from . import calls, prompt
from .cache_rows import with_whole_rows
from .plan import Plan

# what a call may ask of every layer, where the two readings have different ones
PER_LAYER = ("output_hidden_states", "output_attentions")
DRAFTS = ("assistant_model", "prompt_lookup_num_tokens")


def is_on(plan: Plan, model: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a call of `generate` with these arguments is guarded.

    Raises:
        DuetError: it cannot be.
    """
    if plan.config.fallback is None or not plan.compresses or not prompt.has_pixels(plan, kwargs):
        return False
    told = kwargs.get("generation_config") or getattr(model, "generation_config", None)

    def asked(name: str) -> Any:
        return kwargs.get(name, getattr(told, name, None))

    why = (
        "needs the cache in which the prompt is read again: leave out use_cache" if asked("use_cache") is False else ""
    )
    for names, reason in (
        (DRAFTS, "looks at the first token, and drafts come with others"),
        (PER_LAYER, "reads some rows twice, so that layers saw different numbers of tokens"),
        (("synced_gpus",), "reads a prompt again in one process alone"),
    ):
        why = next((f"{reason}: leave out {name}" for name in names if asked(name)), why)
    past = host.cache_of(kwargs)
    if not why and past is not None and past.get_seq_length():
        why = f"begins at the first token, and the cache holds {past.get_seq_length()}: start a new one"
    if why:
        raise DuetError(f"fallback {plan.config.fallback:g} {why}, or use settings without fallback.")
    return True


def hooks_on(engine: Any, model: Any) -> list[Any]:
    """Hook a model whose settings have a fallback; none of the others. What this returns has `remove()`."""
    if engine.plan.config.fallback is None:
        return []
    guard = Guard(engine)
    return [
        # first, since a model that is its own core is given what stage 1 made by the next ones
        model.register_forward_pre_hook(guard.before_model, prepend=True, with_kwargs=True),
        model.register_forward_hook(guard.after_model, with_kwargs=True),
    ]


class Guard:
    """Reads a prompt of `generate` again where it has to.

    Args:
        engine: on the model.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def before_model(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Keep what a prompt with images is read from, and the cache's layers, in which there is nothing yet."""
        generation = calls.generation(self.engine)
        if generation is not None and generation.guarded and prompt.brings_images(self.engine.plan, kwargs):
            generation.first = kwargs, copy.deepcopy(host.cache_of(kwargs).layers)

    def after_model(self, model: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """Replace what a compressed prompt predicts, and its cache, by the whole prompt's in rows that are unsure."""
        generation = calls.generation(self.engine)
        if generation is None or generation.first is None:
            return None
        (stock, empty), generation.first, record = generation.first, None, self.engine.last
        if record is None:
            return None
        margins = leads(output.logits[:, -1])
        unsure = margins < self.engine.plan.config.fallback
        times = generation.repeats(len(unsure))
        if times > 1:  # beams of one sample go together
            unsure = unsure[::times].repeat_interleave(times)
        record = replace(record, margins=margins, fell_back=unsure)
        if bool(unsure.any()):
            cache = host.cache_of(stock)
            compressed, cache.layers = cache.layers, empty
            generation.whole = True
            try:
                whole = model.forward(**stock)
            finally:
                generation.whole = False
            if not bool(unsure.all()):
                cache.layers = with_whole_rows(compressed, cache.layers, unsure)
                whole.logits = torch.where(unsure[:, None, None], whole.logits, output.logits)
            output = whole
        self.engine.last = record
        return output


def leads(logits: Tensor) -> Tensor:
    """(B, V) logits -> (B,) float32: the probability of the likeliest token minus that of the next one."""
    best = logits.float().softmax(-1).topk(2).values
    return best[:, 0] - best[:, 1]
