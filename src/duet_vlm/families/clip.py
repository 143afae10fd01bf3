"""Encoders with a CLS token: its attention at the layer whose features the model uses is the score.

What the taps collect belongs to one call: it lives in a context variable, so threads and copies of a model share
nothing, and the stock modules keep no state.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..attention import keys, queries, weights
from ..budget import stage1_counts
from ..config import DuetConfig
from ..merging import METHODS, Merge


@dataclass
class _Encoding:
    """One call of the vision tower, from its entrance to the projector's exit."""

    hidden: Tensor | None = None  # (B, 1 + N, D) what the tapped attention was given
    output: Tensor | None = None  # (B, 1 + N, D) what the tapped layer returned
    merge: Merge | None = None
    patches: int = 0


_encoding: ContextVar[_Encoding | None] = ContextVar("duet_vlm_encoding", default=None)
_merges: ContextVar[tuple[Merge, ...]] = ContextVar("duet_vlm_merges", default=())


def patches(config: Any) -> int:
    """Patches of one image, without CLS."""
    vision = config.vision_config
    return int((vision.image_size // vision.patch_size) ** 2)


def check(config: Any, duet: DuetConfig, reserved: int) -> None:
    """Refuse towers without CLS, several feature layers, and counts that an image cannot hold."""
    if not duet.merges:
        return
    kind, layer = config.vision_config.model_type, config.vision_feature_layer
    if kind != "clip_vision_model":
        raise ValueError(
            f"stage 1 needs a vision tower with a CLS token, and {kind!r} is none of these: "
            "set dominant=None to use stage 2 alone."
        )
    if not isinstance(layer, int) or layer == 0:
        raise ValueError(
            f"stage 1 needs one vision_feature_layer that is not 0, and this model uses {layer!r}: "
            "set dominant=None to use stage 2 alone."
        )
    dominant, contextual = stage1_counts(duet, patches(config))
    if dominant - reserved + contextual < 1:
        raise ValueError(f"dominant {duet.dominant!r} keeps no patch besides CLS: give at least {reserved + 1}.")


def tap(core: Any) -> list[RemovableHandle]:
    """Keep, for one call, what the scoring layer of the vision tower sees and returns."""
    index = core.config.vision_feature_layer
    layer = core.vision_tower.encoder.layers[index if index < 0 else index - 1]

    def begin(tower: nn.Module, args: Any) -> None:
        _encoding.set(_Encoding())
        _merges.set(())

    def before_attention(attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        encoding = _encoding.get()
        if encoding is not None:
            encoding.hidden = args[0] if args else kwargs["hidden_states"]

    def after_layer(layer: nn.Module, args: Any, output: Any) -> None:
        encoding = _encoding.get()
        if encoding is not None:
            encoding.output = output[0] if isinstance(output, tuple) else output

    return [
        core.vision_tower.register_forward_pre_hook(begin),
        layer.self_attn.register_forward_pre_hook(before_attention, with_kwargs=True),
        layer.register_forward_hook(after_layer),
    ]


@torch.no_grad()
def rank(attention: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) attention that CLS pays to every patch, summed over heads, and (B, N, d) keys averaged over heads."""
    query, scaling = queries(attention, hidden[:, :1])
    key = keys(attention, hidden)
    scores = weights(query, key, None, getattr(attention, "scale", scaling))[:, 0, 1:] * query.shape[1]
    return scores, key[:, :, 1:].float().mean(1)


def merge(core: Any, duet: DuetConfig, reserved: int) -> tuple[_Encoding, Merge]:
    """Decide stage 1 for the images just encoded; `reserved` of the dominant places are not for patches."""
    encoding = _encoding.get()
    assert encoding is not None and encoding.hidden is not None
    index = core.config.vision_feature_layer
    attention = core.vision_tower.encoder.layers[index if index < 0 else index - 1].self_attn
    scores, metric = rank(attention, encoding.hidden)
    dominant, contextual = stage1_counts(duet, scores.shape[1])
    encoding.merge = METHODS[duet.merging](scores, metric, dominant - reserved, contextual, duet.cluster_width)
    encoding.patches = scores.shape[1]
    _merges.set((*_merges.get(), encoding.merge))
    return encoding, encoding.merge


def finish_encoding() -> _Encoding:
    """The call's notes, handed over for the last time."""
    encoding = _encoding.get()
    assert encoding is not None and encoding.merge is not None
    _encoding.set(None)
    return encoding


def take_merges() -> list[Merge]:
    """Stage 1's decisions in this context since the last call."""
    merges = list(_merges.get())
    _merges.set(())
    return merges

