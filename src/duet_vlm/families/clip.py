"""Encoders with a CLS token: its attention at the layer whose features the model uses is the score.

What the taps collect belongs to one call: it lives in a context variable, so threads and copies of a model share
nothing, and the stock modules keep no state.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..attention import keys, queries, weights
from ..budget import stage1_counts
from ..config import DuetConfig
from ..errors import DuetError
from ..merging import Encoded, Merge, merge
from ..proportional import with_sizes
from .family import check_feature_layer, feature_layer


@dataclass
class _Encoding:
    """One call of the vision tower, from its entrance to the projector's exit."""

    hidden: Tensor | None = None  # (B, 1 + N, D) what the attention of the layer was given whose output are features
    output: Tensor | None = None  # (B, 1 + N, D) what that layer returned
    result: Any = None  # the tower's own output object, which `get_..._features` hands on
    merges: list[Merge] = field(default_factory=list)
    length: int = 0  # tokens that the projector was given, of each image


_STATISTICS = 2**22  # key values, in float32: 16 MB

_encoding: ContextVar[_Encoding | None] = ContextVar("duet_vlm_encoding", default=None)


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
    kind = config.vision_config.model_type
    if kind != "clip_vision_model":
        raise DuetError(
            f"stage 1 needs a vision tower with a CLS token, and {kind!r} is none of these: "
            "leave dominant and downsample None to use stage 2 alone."
        )
    if duet.downsample is not None:
        whole = grid(config)
        if duet.downsample[0] > whole[0] or duet.downsample[1] > whole[1]:
            raise DuetError(
                f"downsample {duet.downsample!r} is more than the image's {whole[0]} rows and {whole[1]} columns of "
                "patches: give fewer."
            )
        return
    check_feature_layer(config)
    dominant, contextual = stage1_counts(duet, patches(config))
    if dominant - reserved + contextual < 1:
        raise DuetError(f"dominant {duet.dominant!r} keeps no patch besides CLS: give at least {reserved + 1}.")


@torch.no_grad()
def rank(attention: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) attention that CLS pays to every patch, summed over heads, and (B, N, d) keys averaged over heads."""
    query, scaling = queries(attention, hidden[:, :1])
    key = keys(attention, hidden)
    scores = weights(query, key, None, getattr(attention, "scale", scaling))[:, 0, 1:] * query.shape[1]
    return scores, key[:, :, 1:].float().mean(1)


class Tap:
    """What stage 1 reads of one tower.

    Bound methods are hooked, not closures, so that a deep copy of the model hooks its own tower.
    """

    def __init__(self, core: Any, tower: str, stage: Stage1):
        self.core, self.tower, self.stage = core, tower, stage

    @property
    def layer(self) -> Any:
        """The tower's layer whose output the model uses as features."""
        return feature_layer(self.core.config, getattr(self.core, self.tower).encoder.layers)

    def hook(self) -> list[RemovableHandle]:
        tower = getattr(self.core, self.tower)
        return [
            tower.register_forward_pre_hook(self.before_tower),
            self.layer.self_attn.register_forward_pre_hook(self.before_attention, with_kwargs=True),
            # before FSDP's hook, which shards the layer's weights again
            self.layer.register_forward_hook(self.after_layer, prepend=True),
            tower.register_forward_hook(self.after_tower),
        ]

    def before_tower(self, tower: nn.Module, args: Any) -> None:
        _encoding.set(_Encoding())

    def before_attention(self, attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        encoding = _encoding.get()
        if encoding is not None:
            encoding.hidden = args[0] if args else kwargs["hidden_states"]

    def after_layer(self, layer: nn.Module, args: Any, output: Any) -> None:
        encoding = _encoding.get()
        if encoding is not None:
            encoding.output = output[0] if isinstance(output, tuple) else output
            encoding.merges = self.stage.decide(layer, encoding)

    def after_tower(self, tower: nn.Module, args: Any, output: Any) -> None:
        encoding = _encoding.get()
        if encoding is not None:
            encoding.result = output


class Stage1:
    """Stage 1 of one applied model: taps on its towers, merging around the projector.

    Attributes:
        reserved: how many of the dominant tokens are no patches.
        towers: the core model's attributes that hold them.
    """

    reserved = 0

    def __init__(self, core: Any, config: DuetConfig, towers: tuple[str, ...] = ("vision_tower",)):
        self.core, self.config, self.towers = core, config, towers

    def hook(self) -> list[RemovableHandle]:
        taps = [handle for tower in self.towers for handle in Tap(self.core, tower, self).hook()]
        return [
            *taps,
            self.core.multi_modal_projector.register_forward_pre_hook(self.before_projector),
            self.core.multi_modal_projector.register_forward_hook(self.after_projector),
        ]

    def decide(self, layer: Any, encoding: _Encoding) -> list[Merge]:
        """What is merged, a few images at a time, by the attention and keys of `layer`."""
        assert encoding.hidden is not None and encoding.output is not None
        patches = encoding.output[:, 1:]
        parts = self.parts(patches)
        return [self.merge_of(layer, encoding.hidden[part], patches[part]) for part in parts]

    def merge_of(self, layer: Any, hidden: Tensor, patches: Tensor) -> Merge:
        """Of some images; their attention statistics are gone when this returns."""
        scores, metric = rank(layer.self_attn, hidden)
        return merge(self.config, Encoded(scores, metric, patches, grid(self.core.config)), self.reserved)

    def before_projector(self, projector: nn.Module, args: tuple[Tensor]) -> Tensor:
        encoding, given = _encoding.get(), args[0]
        assert encoding is not None and encoding.output is not None
        encoding.length = given.shape[1]
        # video_llava's videos bring CLS along
        patches, cls = given[:, given.shape[1] - encoding.output.shape[1] + 1 :], encoding.output[:, :1]
        parts = zip(self.parts(patches), encoding.merges, strict=True)
        kept = torch.cat([self.retained(patches[part], cls[part], decided) for part, decided in parts])
        if encoding.result is not None:
            encoding.result.duet_merges = encoding.merges
        return kept

    def after_projector(self, projector: nn.Module, args: Any, output: Tensor) -> Tensor:
        encoding = _encoding.get()
        assert encoding is not None
        _encoding.set(None)
        if self.config.proportional:
            output = with_sizes(output, torch.cat([merge.sizes for merge in encoding.merges]))
        return self.placed(output, encoding.merges, encoding.length)

    def parts(self, patches: Tensor) -> list[slice]:
        """(B, N, D) -> the images whose attention statistics are held at a time."""
        together = self.together(patches)
        return [slice(first, first + together) for first in range(0, len(patches), together)]

    def together(self, patches: Tensor) -> int:
        """How many images' attention statistics are held at a time: one frame's, or what fills 16 MB."""
        return max(1, _STATISTICS // (patches.shape[1] * patches.shape[2]))

    def retained(self, patches: Tensor, cls: Tensor, merge: Merge) -> Tensor:
        """(B, N, D) patches and (B, 1, D) CLS -> (B, K, D), what the projector gets."""
        raise NotImplementedError

    def placed(self, projected: Tensor, merges: list[Merge], length: int) -> Tensor:
        """(B, K, D) projected tokens -> (B, length, D) with zeros where a token was removed."""
        raise NotImplementedError
