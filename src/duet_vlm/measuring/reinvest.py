"""What the cost of an uncompressed video or picture buys when it is compressed: more frames, or more pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config.budget import after_drops, stage1_counts
from ..config.decoder_shape import DecoderShape
from ..config.fitting import last_that
from ..config.settings import Settings
from ..errors import DuetError
from ..families import family_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

KINDS = ("frames", "resolution")
MOST = 4096  # times as many


@dataclass(frozen=True)
class Cost:
    """Of one prompt: operations of the tower and of the decoder's prefill, and bytes of keys and values."""

    flops: int
    kv_bytes: int

    def within(self, other: Cost) -> bool:
        """Whether it is no more than another one, in both."""
        return self.flops <= other.flops and self.kv_bytes <= other.kv_bytes


def tower_flops(vision: Any, patches: int) -> int:
    """Operations of a vision tower on one image or frame of so many patches, by its config.

    A multiply and an add each, and attention from every patch to every other one: where a tower has windows, this is
    more than it does, and as the tower is paid for once more with every frame, fewer of these are promised.

    Raises:
        DuetError: a tower whose config does not have the usual sizes.
    """
    width = getattr(vision, "embed_dim", None) or getattr(vision, "hidden_size", None)
    layers = getattr(vision, "num_hidden_layers", None) or getattr(vision, "depth", None)
    inside = getattr(vision, "intermediate_size", None)
    if inside is None and width and getattr(vision, "mlp_ratio", None):
        inside = int(width * vision.mlp_ratio)
    if not (width and layers and inside):
        raise DuetError(f"the operations of a {vision.model_type} are not known, so it cannot be said what they buy.")
    products = 3 if getattr(vision, "hidden_act", "") == "silu" else 2  # gated
    in_layer = 4 * width**2 + products * width * inside
    return int(layers * (2 * patches * in_layer + 4 * patches * patches * width))


def patches_of(config: PreTrainedConfig, tokens: int) -> int:
    """Patches of the tower that make so many visual tokens of an image or a frame."""
    vision = config.vision_config
    if not family_of(config).dynamic:
        sides = vision.image_size if isinstance(vision.image_size, (list, tuple)) else [vision.image_size] * 2
        size = vision.patch_size if isinstance(vision.patch_size, (list, tuple)) else [vision.patch_size] * 2
        return math.prod(side // patch for side, patch in zip(sides, size, strict=True))
    return int(tokens * getattr(vision, "spatial_merge_size", 1) ** 2)


def cost(config: PreTrainedConfig, duet: Settings, tokens: int, parts: int, text_tokens: int) -> Cost:
    """What a prompt costs whose image, or video of `parts` frames, has `tokens` visual tokens in each.

    Args:
        config: of a supported model.
        duet: the compression; with `coverage`, which goes by the image, at its most.
        tokens: visual tokens of a frame, uncompressed.
        parts: frames, whose visual tokens stage 2 ranks together.
        text_tokens: beside them.
    """
    family, shape = family_of(config), DecoderShape.of(config)
    entering = parts * sum(stage1_counts(duet, tokens, family.dynamic))
    layers = [n + text_tokens for n in after_drops(duet, entering, shape.layers)]
    kept = sum(shape.layer_kv_bytes(n, i, duet.compresses) for i, n in enumerate(layers))
    tower = parts * tower_flops(config.vision_config, patches_of(config, tokens))
    return Cost(tower + shape.prefill_flops(layers), kept)


def frames_for(config: PreTrainedConfig, duet: Settings, tokens: int, frames: int, text_tokens: int = 64) -> int:
    """How many frames, compressed, cost no more than `frames` of the stock model, in operations and in bytes.

    Args:
        config: of a supported model.
        duet: the compression.
        tokens: visual tokens of a frame, uncompressed.
        frames: what the stock model is shown.
        text_tokens: beside them.

    Returns:
        At least `frames` of it, as compression costs nothing in this count; at most `MOST` times as many.
    """
    stock = cost(config, Settings(), tokens, frames, text_tokens)
    return last_that(
        lambda n: n <= frames or cost(config, duet, tokens, n, text_tokens).within(stock), frames, MOST * frames
    )


def tokens_for(config: PreTrainedConfig, duet: Settings, tokens: int, text_tokens: int = 64) -> int:
    """How many visual tokens an image may have, before compression, to cost no more than one of `tokens` in stock.

    Raises:
        DuetError: a model that makes as many tokens of every image.
    """
    if not family_of(config).dynamic:
        raise DuetError(
            f"a {config.model_type} makes as many visual tokens of every picture, so it has no resolution to spend on: "
            "choose frames."
        )
    stock = cost(config, Settings(), tokens, 1, text_tokens)
    return last_that(
        lambda n: n <= tokens or cost(config, duet, n, 1, text_tokens).within(stock), tokens, MOST * tokens
    )


def reinvested(
    config: PreTrainedConfig, duet: Settings, kind: str, tokens: int, frames: int, text_tokens: int
) -> dict[str, Any]:
    """What `duet budget --reinvest` says, as plain data.

    Args:
        config, duet, tokens, text_tokens: as `frames_for` takes them.
        kind: one of `KINDS`.
        frames: of the stock model.

    Raises:
        DuetError: an unknown kind, or one that this model has not.
    """
    if kind not in KINDS:
        raise DuetError(f"--reinvest {kind!r} is unknown: choose one of {', '.join(KINDS)}.")
    if kind == "frames":
        family = family_of(config)
        if not family.takes_video:
            raise DuetError(f"a {config.model_type} takes pictures only, so it has no frames to spend on.")
        more = frames_for(config, duet, tokens, frames, text_tokens)
        now = cost(config, duet, tokens, more, text_tokens)
        before = cost(config, Settings(), tokens, frames, text_tokens)
        words = f"{more} frames cost what {frames} cost stock"
    else:
        more = tokens_for(config, duet, tokens, text_tokens)
        now, before = cost(config, duet, more, 1, text_tokens), cost(config, Settings(), tokens, 1, text_tokens)
        words = f"a picture of {more} visual tokens costs what one of {tokens} costs stock, sides times " \
                f"{math.sqrt(more / tokens):.2f}"  # fmt: skip
    return {
        "kind": kind, "before": frames if kind == "frames" else tokens, "after": more, "words": words,
        "flops_before": before.flops, "flops": now.flops, "kv_bytes_before": before.kv_bytes, "kv_bytes": now.kv_bytes,
    }  # fmt: skip
