"""What a schedule costs on a model's images, before and after, as plain data for tables and benchmarks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..config.audio import AudioSchedule
from ..config.budget import least_of
from ..config.decoder_shape import DecoderShape
from ..config.drops import check_lending, ranked_with_attention
from ..config.layer_shape import lending_layers
from ..config.pixelprune import check_countable
from ..errors import DuetError
from ..families import family_of
from ..families.image_shape import ImageShape
from ..presets import DuetConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def cost_report(
    config: PreTrainedConfig,
    duet: DuetConfig,
    text_tokens: int,
    bytes_per_value: int = 2,
    grid: tuple[int, ...] | None = None,
    tiles: int | None = None,
    size: tuple[int, int] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Tokens, FLOPs and KV bytes of one prompt's prefill, per decoder layer and in all, before and after.

    Args:
        config: a supported model's transformers config.
        duet: the compression.
        text_tokens: text tokens beside the image.
        bytes_per_value: of keys and values, 2 for half precision.
        grid: rows and columns of the image's patches, for models whose images differ.
        tiles: how many tiles the image is cut into, for models that do that.
        size: (height, width) of the image in pixels, for AnyRes models.
        seconds: of a sound beside the image, for models that hear.

    Returns:
        The figures. With `coverage` they depend on the image: these are the most, and `least` has those at its floor.

    Raises:
        DuetError: settings whose counts the picture decides (pixelprune), or that the model's family refuses; a drop
            that a hybrid decoder cannot rank, or behind a layer that lends its keys and values; a sound for a model
            that hears nothing, or none where the settings compress it.
    """
    check_countable(duet.pixelprune)
    family = family_of(config)
    family.check(config, duet)  # refuses what `apply` would
    image, shape = ImageShape.of(config, grid, tiles, size), DecoderShape.of(config, bytes_per_value)
    if shape.linear is not None:
        ranked_with_attention(duet.drops, shape.linear.layers, shape.layers)
    check_lending(duet.drops, lending_layers(config), shape.layers)
    counts = image.tokens_per_layer(duet, shape.layers)
    sound, heard = audio_per_layer(config, duet, seconds, shape.layers)
    before = image.visual_tokens + sound + text_tokens
    after = [n + m + text_tokens for n, m in zip(counts, heard, strict=True)]
    layers = [
        {
            "layer": i,
            "visual_tokens": n,
            "flops_before": shape.layer_flops(before, i),
            "flops": shape.layer_flops(after[i], i),
            "kv_bytes_before": shape.layer_kv_bytes(before, i, compressed=False),
            "kv_bytes": shape.layer_kv_bytes(after[i], i, duet.compresses),
            **({} if seconds is None else {"audio_tokens": heard[i]}),
        }
        for i, n in enumerate(counts)
    ]
    totals: dict[str, Any] = {
        "visual_tokens": image.visual_tokens,
        "parts": image.crops,
        "unit": image.unit,
        "text_tokens": text_tokens,
        "tokens_in": counts[0],
        "average_tokens": sum(counts) / len(counts),
        "last_layer_tokens": counts[-1],
        "flops_before": shape.prefill_flops([before] * shape.layers),
        "flops": shape.prefill_flops(after),
        "kv_bytes_before": sum(row["kv_bytes_before"] for row in layers),
        "kv_bytes": sum(row["kv_bytes"] for row in layers),
    }
    if seconds is not None:
        totals |= {"seconds": seconds, "audio_tokens": sound, "average_audio_tokens": sum(heard) / len(heard)}
    totals["flops_ratio"] = totals["flops_before"] / totals["flops"]
    # a schedule may keep no visual token, and there may be no text
    totals["kv_ratio"] = totals["kv_bytes_before"] / totals["kv_bytes"] if totals["kv_bytes"] else None
    if duet.coverage is not None:  # what is said above is the most
        fewest = max(least_of(duet, image.patches), 1 + family.reserved)  # a patch stays in any case
        floor = replace(duet, dominant=fewest, coverage=None, coverage_floor=1)
        least = cost_report(config, floor, text_tokens, bytes_per_value, grid, tiles, size, seconds)
        totals["least"] = {name: least[name] for name in ("tokens_in", "average_tokens", "flops", "kv_bytes")}
    return totals | {"config": duet.to_dict(), "layers": layers}


def audio_per_layer(
    config: PreTrainedConfig, duet: DuetConfig, seconds: float | None, layers: int
) -> tuple[int, list[int]]:
    """Audio tokens of a sound: those that come in, and what each decoder layer works on; all of them where it is text.

    Raises:
        DuetError: see `cost_report`.
    """
    if seconds is None:
        if duet.audio_keep is not None:
            raise DuetError(f"audio_keep {duet.audio_keep:g} compresses sound, and there is none: give seconds= too.")
        return 0, [0] * layers
    tokens = family_of(config).audio_tokens(config, seconds)
    schedule = AudioSchedule.of(duet, layers)
    return tokens, [tokens] * layers if schedule is None else schedule.tokens_per_layer(tokens, layers)
