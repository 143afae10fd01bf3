"""Encoders with a CLS token: its attention at the layer whose features the model uses is the score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..config.budget import stage1_counts
from ..config.settings import Settings
from ..errors import DuetError
from ..host.attention import keys, queries
from ..stage1 import Encoded, Merge, merge
from ..tensors.streamed import column_sums
from . import encoding
from .encoding import EncoderCall, Stage1
from .features import check_feature_layer, feature_layer
from .placing import placed
from .taps import Tap

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_STATISTICS = 2**22  # key values, in float32: 16 MB


KINDS = ("clip_vision_model", "dinov2", "internvl_vision")  # towers whose first token is CLS and the others patches


def grid(config: PreTrainedConfig) -> tuple[int, int]:
    """Rows and columns of patches of one image."""
    vision = config.vision_config
    sizes, patches = (x if isinstance(x, (list, tuple)) else (x, x) for x in (vision.image_size, vision.patch_size))
    rows, columns = (int(size // patch) for size, patch in zip(sizes, patches, strict=True))
    return rows, columns


def layers_of(tower: Any) -> Any:
    """The layers of a tower."""
    encoder = tower.encoder
    return encoder.layers if hasattr(encoder, "layers") else encoder.layer


def attention_of(layer: Any) -> Any:
    """The attention of one of its layers."""
    return layer.self_attn if hasattr(layer, "self_attn") else layer.attention


def count_patches(config: PreTrainedConfig) -> int:
    """Patches of one image, without CLS."""
    rows, columns = grid(config)
    return rows * columns


def check_tower(config: PreTrainedConfig, duet: Settings, reserved: int, one_layer: bool = True) -> None:
    """Refuse towers without CLS, counts that an image cannot hold, and, with `one_layer`, several feature layers."""
    if not duet.merges:
        return
    kind = config.vision_config.model_type
    if kind not in KINDS:
        raise DuetError(
            f"stage 1 needs a vision tower with a CLS token ({', '.join(KINDS)}), and {kind!r} is none of these: "
            "leave dominant and downsample None to use stage 2 alone."
        )
    if duet.downsample is not None:
        if kind != KINDS[0]:
            raise DuetError(f"downsample is for a {KINDS[0]}, and this tower is a {kind}: use another stage 1.")
        whole = grid(config)
        if duet.downsample[0] > whole[0] or duet.downsample[1] > whole[1]:
            raise DuetError(
                f"downsample {duet.downsample!r} is more than the image's {whole[0]} rows and {whole[1]} columns of "
                "patches: give fewer."
            )
        return
    if one_layer:
        check_feature_layer(config)
    dominant, contextual = stage1_counts(duet, count_patches(config))
    if dominant - reserved + contextual < 1:
        raise DuetError(f"dominant {duet.dominant!r} keeps no patch besides CLS: give at least {reserved + 1}.")


@torch.no_grad()
def cls_attention(attention: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attention of CLS to every patch (B, N), summed over heads, and keys (B, N, d), averaged over heads."""
    query, softmax = queries(attention, hidden[:, :1])
    key = keys(attention, hidden)
    scores = column_sums(query, key, softmax)[:, 1:] * query.shape[1]
    return scores, key[:, :, 1:].float().mean(1)


class ClsStage1(Stage1):
    """Merging around the projector.

    Attributes:
        reserved: how many of the dominant tokens are no patches.
    """

    reserved = 0

    def taps(self) -> list[Any]:
        handles: list[Any] = []
        for tower in self.towers:
            layer = self.scoring_layer(layers_of(tower))
            handles += Tap(self).hook(tower, attention_of(layer), layer)
        handles.append(self.projector.register_forward_pre_hook(self.before_projector))
        handles.append(self.projector.register_forward_hook(self.after_projector))
        return handles

    def scoring_layer(self, layers: Any) -> Any:
        """The layer whose attention scores, of a tower's."""
        return feature_layer(self.core.config, layers)

    def after_layer(self, call: EncoderCall, layer: Any) -> None:
        call.decisions = self.decide(layer, call)

    def decide(self, layer: Any, call: EncoderCall) -> list[Merge]:
        """Decide what is merged by the attention and keys of `layer`, a few images at a time."""
        patches = self.patches(call)
        chunks = self.chunks(call, patches)
        return [self.merge_of(layer, call, part, patches[part]) for part in chunks]

    def patches(self, call: EncoderCall) -> Tensor:
        """(B, N, D) what the scoring layer made of the patches that are merged."""
        assert call.output is not None
        return call.output[:, 1:]

    def statistics(self, layer: Any, call: EncoderCall, part: slice) -> tuple[Tensor, Tensor]:
        """Scores (b, N) and keys (b, N, d) of some of the images."""
        return cls_attention(attention_of(layer), call.hidden[part])

    def merge_of(self, layer: Any, call: EncoderCall, part: slice, patches: Tensor) -> Merge:
        """Decide for some of the images; their attention statistics are gone when this returns."""
        scores, metric = self.statistics(layer, call, part)
        encoded = Encoded(scores, metric, patches, grid(self.core.config))
        return merge(self.settings_for(call, encoded, self.reserved), encoded, self.reserved)

    def before_projector(self, projector: nn.Module, args: tuple[Tensor]) -> Tensor | None:
        call = self.call()
        if call is None or call.output is None:
            return None
        tokens = args[0]
        call.length = tokens.shape[1]
        # video_llava's videos bring CLS along
        patches, cls = tokens[:, tokens.shape[1] - call.output.shape[1] + 1 :], call.output[:, :1]
        chunks = zip(self.chunks(call, patches), call.decisions, strict=True)
        # images may retain different numbers
        kept = [self.retained(patches[part], cls[part], decided).flatten(0, 1) for part, decided in chunks]
        call.kept = torch.cat(kept)[None]
        return call.kept if call.engine_only else None

    def after_projector(self, projector: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        call = self.call()
        if call is None or call.kept is None:
            return None
        kept, call.kept = call.kept, None
        if call.engine_only:
            projected = output
        else:
            with encoding.paused():
                projected = projector(kept)
        features, sizes = self.placed(projected, call.decisions, call.length)
        call.features, call.sizes = features.flatten(0, 1), sizes.flatten()
        return features if call.engine_only else None

    def chunks(self, call: EncoderCall, patches: Tensor) -> list[slice]:
        """Cut the images (B, N, D) into chunks whose attention statistics are held at a time."""
        images_per_chunk = self.images_per_chunk(patches)
        return [slice(start, start + images_per_chunk) for start in range(0, len(patches), images_per_chunk)]

    def images_per_chunk(self, patches: Tensor) -> int:
        """Count the images whose attention statistics are held at a time: as many as fill 16 MB, at least one.

        Where images of one size may retain different numbers, they are decided one by one.
        """
        if self.config.coverage is not None or self.config.history is not None:
            return 1
        return max(1, _STATISTICS // (patches.shape[1] * patches.shape[2]))

    def retained(self, patches: Tensor, cls: Tensor, merge: Merge) -> Tensor:
        """Make what the projector gets, (B, K, D), from patches (B, N, D) and CLS (B, 1, D)."""
        return merge.retained(patches)

    def placed(self, projected: Tensor, decisions: list[Merge], length: int) -> tuple[Tensor, Tensor]:
        """Place projected tokens (1, total, D): (B, length, D), zeros where one was removed, and sizes (B, length)."""
        done, places, sizes = 0, [], []
        for part in decisions:
            where, counts = self.places(part)
            images = torch.arange(done, done + len(where), device=projected.device)
            done += len(where)
            places.append((where.to(projected.device) + images[:, None] * length).flatten())
            sizes.append(counts.flatten())
        tokens, numbers = placed(projected, torch.cat(places)[None], torch.cat(sizes)[None], done * length)
        return tokens.unflatten(1, (done, length))[0], numbers.unflatten(1, (done, length))[0]

    def places(self, merge: Merge) -> tuple[Tensor, Tensor]:
        """Say where the tokens of `retained` stand in an image, (B, K) long, and for how many each one stands."""
        return merge.places, merge.sizes
