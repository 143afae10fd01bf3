"""What is compared in a benchmark: stock, and every method at every budget."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..config.budget_rule import SAVED, WITHOUT_BUDGET, Budget, is_file
from ..config.linear_shape import linear_layers
from ..config.pixelprune import check_countable
from ..errors import DuetError
from ..families.image_shape import ImageShape
from ..families.random_images import usual_grid
from ..host import tiles_of
from ..inputs.choice import chosen
from ..presets import Drop, DuetConfig, preset

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

STOCK = "stock"


@dataclass(frozen=True)
class Setting:
    """One column of a benchmark: a method at a budget. `STOCK` has neither.

    Attributes:
        tokens: the budget in visual tokens per image (crop, tile) and layer, or
        keep: as a fraction of them.
    """

    method: str
    tokens: float | None
    config: DuetConfig
    keep: float | None = None


def settings(
    config: PreTrainedConfig,
    methods: list[str],
    budgets: list[float],
    layers: int | None = None,
    grid: tuple[int, ...] | None = None,
    tiles: int | None = None,
    *,
    size: tuple[int, int] | None = None,
    keep: Sequence[float] = (),
) -> list[Setting]:
    """Stock, every method at every budget, and for "saved" the settings that the model brings.

    Each is solved on the model's full depth, so published settings stay as published; on fewer `layers` the drop
    layers are scaled (16 and 24 of 32 become 4 and 6 of 8), which keeps the average of tokens per layer.

    Args:
        budgets: in tokens.
        grid, tiles, size: of each image; see `Workload`.
        keep: budgets as fractions of an image's visual tokens.

    Raises:
        ValueError: an unknown method, a budget that it cannot meet, or more layers than the model has.
    """
    full = config.get_text_config().num_hidden_layers
    layers = full if layers is None else layers
    if not 1 <= layers <= full:
        raise DuetError(f"layers {layers} is not possible: this model has {full} decoder layers, choose 1 to {full}.")
    linear = linear_layers(config)
    listed = [Setting(STOCK, None, DuetConfig())]
    grid = usual_grid(config) if grid is None else grid
    image = ImageShape.of(config, grid, tiles, size)
    if grid is None and image.dynamic:
        assert image.size is not None
        grid = tiles_of(config, image.size)[1:]
    for method in methods:
        if method == SAVED or is_file(method):
            saved = chosen(config, method, None, None).config
            if saved.coverage is not None:
                raise DuetError(
                    f"the model brings coverage {saved.coverage:g}, which goes by what a picture shows, and these "
                    "pictures are random: give a method and a budget."
                )
            counts = image.tokens_per_layer(saved, full)
            parts = 1 if image.unit == "image" else image.crops
            check_countable(saved.pixelprune)
            listed.append(Setting(method, sum(counts) / full / parts, scaled(saved, full, layers, linear)))
            continue
        for budget in [Budget()] if method in WITHOUT_BUDGET else Budget.several(budgets, keep):
            whole = preset(method, model=config, tokens=budget.tokens, keep=budget.keep, grid=grid)
            check_countable(whole.pixelprune)
            listed.append(Setting(method, budget.tokens, scaled(whole, full, layers, linear), budget.keep))
    return listed


def usual_budgets(config: PreTrainedConfig, grid: tuple[int, ...] | None = None) -> tuple[list[float], list[float]]:
    """The budgets that are timed where none is given: tokens, fractions.

    LLaVA-1.5's published 192, 128 and 64 of 576, and about the same fractions where an image (crop, tile) has more or
    fewer visual tokens.
    """
    patches = ImageShape.of(config, usual_grid(config) if grid is None else grid).patches
    return ([192.0, 128.0, 64.0], []) if patches == 576 else ([], [0.33, 0.22, 0.11])


def scaled(config: DuetConfig, full: int, layers: int, linear: Collection[int] = ()) -> DuetConfig:
    """The same schedule on fewer layers; drops that fall on one layer leave the last of them.

    A drop goes on to the next layer with attention where none is left that could rank it before; `linear` are the
    layers without.
    """
    at: dict[int, Drop] = {}
    for drop in config.drops:
        layer = max([1, *at, drop.layer * layers // full])
        behind = drop.layer - drop.ranking_layer
        if 0 < drop.keep < 1:
            free = max((before + 1 for before in at if before < layer), default=0)
            while layer < layers and all(i in linear for i in range(free, max(0, layer - behind) + 1)):
                layer += 1
        at[layer] = Drop(layer, drop.keep, None if drop.rank_at is None else max(0, layer - behind))
    return replace(config, drops=[drop for layer, drop in at.items() if layer < layers])


def shortened(config: PreTrainedConfig, layers: int | None) -> PreTrainedConfig:
    """The config with fewer decoder layers."""
    config = copy.deepcopy(config)
    if layers is not None:
        text = config.get_text_config()
        full, text.num_hidden_layers = text.num_hidden_layers, layers
        borrowing = getattr(text, "num_kv_shared_layers", None)
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
            if borrowing:  # as many in proportion; what they borrow has to be there
                least = max(text.layer_types.index(kind) for kind in {*text.layer_types}) + 1
                text.num_kv_shared_layers = min(borrowing * layers // full, layers - least)
    return config


def label(setting: Setting) -> str:
    """ "duet 64", "duet keep 0.33"."""
    if setting.keep is not None:
        return f"{setting.method} keep {setting.keep:g}"
    return setting.method if setting.tokens is None else f"{setting.method} {setting.tokens:g}"
