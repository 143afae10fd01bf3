"""What a schedule costs on a model's images, before and after, as plain data for tables and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .budget import DecoderShape, after_drops, as_grid, stage1_counts
from .config import DuetConfig
from .families import family_of


@dataclass(frozen=True)
class ImageShape:
    """One image as the language model gets it uncompressed.

    Attributes:
        visual_tokens: all of them, an AnyRes image's row ends included.
        crops: how often the vision tower runs on it.
        patches: visual tokens of what stage 1 merges at a time, a crop or a whole image.
        dynamic: whether a small image lowers the counts of stage 1.
    """

    visual_tokens: int
    crops: int
    patches: int
    dynamic: bool = False

    @classmethod
    def of(cls, config: Any, grid: tuple[int, ...] | None = None) -> ImageShape:
        """The image of a fixed-resolution model, the largest one of an AnyRes model's grids, or one of `grid` patches.

        Raises:
            ValueError: no grid, and a model whose images differ.
        """
        grid = None if grid is None else as_grid(grid)
        family, tiled = family_of(config), bool(getattr(config, "image_grid_pinpoints", None))
        rows, columns, in_row = tiles(config) if tiled else (0, 0, 0)
        if grid is None and tiled and family.dynamic:
            grid = rows * in_row, columns * in_row
        patches = family.visual_tokens(config) if grid is None else family.tokens_of_grid(config, grid)
        if family.dynamic:
            return cls(patches + (family.row_ends(config, grid) if grid else 0), 1, patches, dynamic=True)
        # a token at the end of every row
        return cls(patches + rows * in_row * (columns * in_row + 1), 1 + rows * columns, patches)

    def tokens_per_layer(self, config: DuetConfig, layers: int) -> list[int]:
        """Visual tokens of the image in every decoder layer, as METHOD counts them."""
        entering = self.visual_tokens
        if config.merges:
            entering = self.crops * sum(stage1_counts(config, self.patches, self.dynamic))
        return after_drops(config, entering, layers)


def largest_grid(config: Any) -> tuple[int, int]:
    """(height, width) in pixels of an AnyRes model's largest grid of crops."""
    height, width = max(config.image_grid_pinpoints, key=lambda size: size[0] * size[1])
    return height, width


def tiles(config: Any) -> tuple[int, int, int]:
    """Rows and columns of crops of an AnyRes model's largest grid, and rows of patches of one crop."""
    side = config.vision_config.image_size
    height, width = largest_grid(config)
    return height // side, width // side, side // config.vision_config.patch_size


def report(
    config: Any,
    duet: DuetConfig,
    text_tokens: int,
    bytes_per_value: int = 2,
    grid: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Tokens, FLOPs and KV bytes of one prompt's prefill, per decoder layer and in all, before and after.

    Args:
        config: a supported model's transformers config.
        duet: the compression.
        text_tokens: text tokens beside the image.
        bytes_per_value: of keys and values, 2 for half precision.
        grid: rows and columns of the image's patches, for models whose images differ.
    """
    image, shape = ImageShape.of(config, grid), DecoderShape.of(config, bytes_per_value)
    counts = image.tokens_per_layer(duet, shape.layers)
    before = image.visual_tokens + text_tokens
    layers = [
        {
            "layer": i,
            "visual_tokens": n,
            "flops_before": shape.layer_flops(before),
            "flops": shape.layer_flops(n + text_tokens),
            "kv_bytes_before": shape.layer_kv_bytes(before),
            "kv_bytes": shape.layer_kv_bytes(n + text_tokens),
        }
        for i, n in enumerate(counts)
    ]
    totals: dict[str, Any] = {
        "visual_tokens": image.visual_tokens,
        "text_tokens": text_tokens,
        "tokens_in": counts[0],
        "average_tokens": sum(counts) / len(counts),
        "last_layer_tokens": counts[-1],
        "flops_before": shape.prefill_flops([before] * shape.layers),
        "flops": shape.prefill_flops([n + text_tokens for n in counts]),
        "kv_bytes_before": sum(row["kv_bytes_before"] for row in layers),
        "kv_bytes": sum(row["kv_bytes"] for row in layers),
    }
    totals["flops_ratio"] = totals["flops_before"] / totals["flops"]
    # a schedule may keep no visual token, and there may be no text
    totals["kv_ratio"] = totals["kv_bytes_before"] / totals["kv_bytes"] if totals["kv_bytes"] else None
    return totals | {"config": duet.to_dict(), "layers": layers}
