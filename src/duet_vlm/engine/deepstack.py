"""Deepstack: visual features that a decoder adds at several of its layers, by a mask of the full sequence.

Behind a drop that mask does not fit. So they are taken out of the language model's arguments, and each layer's entrance
adds what belongs to the tokens that are kept.
"""

from __future__ import annotations

from typing import Any

from .. import host
from ..tensors.tokens import spread
from .forward_pass import ARGUMENT, Prefill

# what the language model is given of features, and of the places that they belong to
BEHIND = "deepstack_visual_embeds", "visual_pos_masks"  # a list, added behind layers 0, 1, ...
BEFORE = "deepstack_features", "vision_mask"  # by the number of the layer that they are added before


def hooks_on(language_model: Any) -> list[Any]:
    """Hook a language model that adds such features; no handle where it does not."""
    if not any(host.takes(language_model, names[0]) for names in (BEHIND, BEFORE)):
        return []
    return [language_model.register_forward_pre_hook(take_out, with_kwargs=True)]


def take_out(language_model: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Before the language model: its features go to the pass under way, where that is a prompt."""
    prompt = kwargs.get(ARGUMENT)
    names = next((names for names in (BEHIND, BEFORE) if kwargs.get(names[0]) is not None), None)
    if names is None or not isinstance(prompt, Prefill):
        return None
    features, mask = (kwargs[name] for name in names)
    mask = mask.to(prompt.visual.device).view_as(prompt.visual)
    by_layer = features.items() if names is BEFORE else enumerate(features, start=1)
    prompt.deepstack = {layer: spread(x.to(kwargs["inputs_embeds"]), mask) for layer, x in by_layer}
    return args, kwargs | dict.fromkeys(names)
