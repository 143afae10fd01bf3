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
from ..merging import Encoded, Merge, merge


@dataclass
class _Encoding:
    """One call of the vision tower, from its entrance to the projector's exit."""

    hidden: Tensor | None = None  # (B, 1 + N, D) what the tapped attention was given
    output: Tensor | None = None  # (B, 1 + N, D) what the tapped layer returned
    merge: Merge | None = None


_encoding: ContextVar[_Encoding | None] = ContextVar("duet_vlm_encoding", default=None)
_merges: ContextVar[tuple[Merge, ...]] = ContextVar("duet_vlm_merges", default=())


def grid(config: Any) -> tuple[int, int]:
    """Rows and columns of patches of one image."""
    side = int(config.vision_config.image_size // config.vision_config.patch_size)
    return side, side


def patches(config: Any) -> int:
    """Patches of one image, without CLS."""
    rows, columns = grid(config)
    return rows * columns


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


@torch.no_grad()
def rank(attention: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) attention that CLS pays to every patch, summed over heads, and (B, N, d) keys averaged over heads."""
    query, scaling = queries(attention, hidden[:, :1])
    key = keys(attention, hidden)
    scores = weights(query, key, None, getattr(attention, "scale", scaling))[:, 0, 1:] * query.shape[1]
    return scores, key[:, :, 1:].float().mean(1)


class Stage1:
    """Stage 1 of one applied model: taps on the tower, merging around the projector.

    Bound methods are hooked, not closures, so that a deep copy of the model hooks its own tower.

    Attributes:
        reserved: how many of the dominant tokens are no patches.
    """

    reserved = 0

    def __init__(self, core: Any, config: DuetConfig):
        self.core, self.config = core, config

    @property
    def layer(self) -> Any:
        """The tower's layer whose output the model uses as features."""
        index = self.core.config.vision_feature_layer
        return self.core.vision_tower.encoder.layers[index if index < 0 else index - 1]

    def hook(self) -> list[RemovableHandle]:
        return [
            self.core.vision_tower.register_forward_pre_hook(self.before_tower),
            self.layer.self_attn.register_forward_pre_hook(self.before_attention, with_kwargs=True),
            self.layer.register_forward_hook(self.after_layer),
            self.core.multi_modal_projector.register_forward_pre_hook(self.before_projector),
            self.core.multi_modal_projector.register_forward_hook(self.after_projector),
        ]

    def before_tower(self, tower: nn.Module, args: Any) -> None:
        _encoding.set(_Encoding())
        _merges.set(())

    def before_attention(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        encoding = _encoding.get()
        if encoding is not None:
            encoding.hidden = args[0] if args else kwargs["hidden_states"]

    def after_layer(self, layer: nn.Module, args: Any, output: Any) -> None:
        encoding = _encoding.get()
        if encoding is not None:
            encoding.output = output[0] if isinstance(output, tuple) else output

    def before_projector(self, projector: nn.Module, args: tuple[Tensor]) -> Tensor:
        encoding = _encoding.get()
        assert encoding is not None and encoding.hidden is not None and encoding.output is not None
        scores, metric = rank(self.layer.self_attn, encoding.hidden)
        encoded = Encoded(scores, metric, args[0], grid(self.core.config))
        encoding.merge = merge(self.config, encoded, self.reserved)
        _merges.set((encoding.merge,))
        return self.retained(args[0], encoding.output[:, :1], encoding.merge)

    def after_projector(self, projector: nn.Module, args: Any, output: Tensor) -> Tensor:
        encoding = _encoding.get()
        assert encoding is not None and encoding.merge is not None
        _encoding.set(None)
        return self.placed(output, encoding.merge)

    def retained(self, patches: Tensor, cls: Tensor, merge: Merge) -> Tensor:
        """(B, N, D) patches and (B, 1, D) CLS -> (B, K, D), what the projector gets."""
        raise NotImplementedError

    def placed(self, projected: Tensor, merge: Merge) -> Tensor:
        """(B, K, D) projected tokens -> (B, N, D) with zeros where a token was removed."""
        raise NotImplementedError


def take_merges() -> list[Merge]:
    """Stage 1's decisions in this context since the last call."""
    merges = list(_merges.get())
    _merges.set(())
    return merges

