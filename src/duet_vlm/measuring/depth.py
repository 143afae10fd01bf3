"""Where a model reads its image: the first layer from which on its visual tokens change no first token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from ..applying import apply
from ..config.drops import Drop
from ..config.values import is_number
from ..engine.handle import Duet
from ..errors import DuetError, shown
from ..families import facts_of
from ..presets import DuetConfig

SAME = 0.01  # nats


@dataclass(frozen=True)
class Depth:
    """What `reading_depth` found.

    Attributes:
        layer: R, the first decoder layer before which all visual tokens may go; None where there is none.
        layers: how many decoder layers there are.
        prompts: how many were read.
        divergence: for l = 1, 2, ..., the mean KL divergence in nats of the first token's distribution without visual
            tokens from layer l on, from the one with all of them.
        drops: the schedule that follows, for `DuetConfig.preset(..., drops=depth.drops)`.
    """

    layer: int | None
    layers: int
    prompts: int
    divergence: tuple[float, ...]
    drops: tuple[Drop, ...]


def reading_depth(model: Any, batches: Iterable[Mapping[str, Tensor]], *, threshold: float = SAME) -> Depth:
    """Measure where a model reads its images, on a few prompts of one's own, without answers.

    R is the first layer l for which the mean over prompts of KL(p || p_l) is below the threshold: p is the distribution
    of the first token with all visual tokens in all layers, p_l with none from layer l on. 20 to 50 prompts are enough
    where the divergence falls off steeply, as it does on the demonstration model (docs/methods.md).

    The schedule keeps half of the visual tokens from R / 2 on and from R on what `duet` keeps to the end in the model's
    family: none, or a quarter (the Qwen family), because a first token cannot tell whether a longer answer looks again.
    Where no layer is below the threshold, it drops nothing.

    Args:
        model: an uncompressed model of a supported family.
        batches: what its processor makes of prompts with an image each, padded on the left if at all.
        threshold: in nats.

    Returns:
        The depth, and the schedule.

    Raises:
        DuetError: the model is compressed or cannot be; there is no prompt, one without an image, or padding on the
            right; or the threshold is no number above 0.

    Example:
        >>> from PIL import Image
        >>> from duet_vlm import DuetConfig
        >>> from duet_vlm.demo.model import load
        >>> from duet_vlm.measuring.depth import reading_depth
        >>> model, processor = load()
        >>> picture, text = Image.new("RGB", (112, 112)), "USER: <image>\\nWhat color is the star? ASSISTANT:"
        >>> depth = reading_depth(model, [processor(images=picture, text=text, return_tensors="pt")])
        >>> depth.layers, len(depth.divergence)
        (12, 11)
        >>> DuetConfig.preset("duet", model=model, keep=0.33, drops=depth.drops).drops == depth.drops
        True
    """
    if not is_number(threshold) or not threshold > 0:
        raise DuetError(f"threshold {shown(threshold)} must be a number of nats above 0.")
    whole, prompts = [], list(batches)
    for batch in prompts:
        if "attention_mask" in batch and not bool(batch["attention_mask"][:, -1].all()):
            raise DuetError(
                "a batch is padded on the right, where its first token is not the last one: pad on the left."
            )
    facts = facts_of(model)
    with apply(model, DuetConfig()) as handle:
        whole = [_first_token(handle, batch) for batch in prompts]
        total = sum(map(len, whole))
        if not total:
            raise DuetError("there is no prompt to measure on: give 20 to 50 with an image each.")
        divergence = []
        for layer in range(1, facts.droppable):
            handle.use(DuetConfig(drops=[Drop(layer, 0)]))
            found = [_first_token(handle, batch, True) for batch in prompts]
            pairs = zip(whole, found, strict=True)
            apart = sum(float(kl_div(q, p, log_target=True, reduction="sum")) for p, q in pairs)
            divergence.append(apart / total)
    deep = next((layer for layer, apart in enumerate(divergence, start=1) if apart < threshold), None)
    return Depth(deep, facts.layers, total, tuple(divergence), schedule(deep, facts.keep_ratios))


def schedule(layer: int | None, ratios: tuple[float, float]) -> tuple[Drop, ...]:
    """Drops for a model that has read its image at `layer`: the first ratio at half of it, the second there."""
    if layer is None:
        return ()
    half = (Drop(layer // 2, ratios[0]),) if layer > 1 else ()
    return *half, Drop(layer, ratios[1])


@torch.no_grad()
def _first_token(handle: Duet, batch: Mapping[str, Tensor], dropped: bool = False) -> Tensor:
    """(B, V) float32, log-probabilities of the token behind each prompt."""
    logits: Tensor = handle.model(**batch, logits_to_keep=1).logits[:, -1]
    if dropped:
        trace = handle.trace
        if trace is None or not all(sample.visual for sample in trace.samples):
            raise DuetError("a prompt has no image, so it cannot tell where images are read: leave it out.")
    return log_softmax(logits.float(), -1)
