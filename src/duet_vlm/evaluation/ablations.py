"""What each part of DUET-VLM is worth: its settings changed one at a time, at one budget."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..config.budget import tokens_per_layer
from ..config.choices import Query
from ..families import facts_of
from ..presets import Drop, DuetConfig, preset
from .runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

BASE = "DUET"
WIDTHS = (1, 2, 4, 6, 8)
QUERIES: tuple[Query, ...] = ("last", "all", "salient")
# what may beat the published method, off by default
OPTIONS: dict[str, dict[str, Any]] = {
    "mean of anchor and members": {"combine": "mean"},
    "diverse dominant tokens": {"diverse": True},
    "one token for the rest": {"rest": True},
    "diverse, and the rest": {"diverse": True, "rest": True},
    "diverse, global clusters": {"diverse": True, "merging": "visionzip"},
    "attention by cluster size": {"proportional": True},
    "position bias out of the ranking": {"debias": True},
    "positions kept": {"positions": "keep"},
}


def ablation_runs(model_config: PreTrainedConfig, keep: float) -> list[Run]:
    """DUET-VLM as published, then every change of it, all at `keep` of the visual tokens, averaged over the layers."""
    facts = facts_of(model_config)
    visual, layers = facts.visual_tokens, facts.layers
    assert visual is not None
    base = preset("duet", model=model_config, keep=keep)
    configs = {BASE: base, "global clusters": replace(base, merging="visionzip")}
    configs |= {f"width {w}": replace(base, cluster_width=w) for w in WIDTHS if w != base.cluster_width}
    configs |= {f"query {query}": replace(base, query=query) for query in QUERIES if query != base.query}
    configs |= {name: replace(base, **changes) for name, changes in OPTIONS.items()}
    for late, gone in drop_layers(layers):
        drops = [Drop(late, 0.5), Drop(gone, 0.0)]
        configs[f"drops at {late} and {gone}"] = both(keep * visual, visual, layers, drops)
    half = layers // 2
    configs[f"one drop, half at {half}"] = both(keep * visual, visual, layers, [Drop(half, 0.5)])
    configs["stage 1 alone"] = preset("duet+none", model=model_config, keep=keep)
    early = max(1, layers // 6)
    alone = [DuetConfig(drops=[Drop(early, n / visual)]) for n in range(visual + 1)]
    configs[f"stage 2 alone, one drop at {early}"] = nearest(alone, keep * visual, visual, layers)
    return [Run(name, config, keep) for name, config in configs.items()]


def drop_layers(layers: int) -> list[tuple[int, int]]:
    """Earlier and later pairs than DUET-VLM's L/2 and 3L/4."""
    return [(layers // 4, layers // 2), (layers // 3, 2 * layers // 3), (2 * layers // 3, 5 * layers // 6)]


def both(budget: float, visual: int, layers: int, drops: list[Drop]) -> DuetConfig:
    """Stage 1 with DUET-VLM's 5 : 1 split in front of other drops."""
    configs = []
    for entering in range(2, visual + 1):
        contextual = round(entering / 6)
        configs.append(DuetConfig(dominant=entering - contextual, contextual=contextual, drops=drops))
    return nearest(configs, budget, visual, layers)


def nearest(configs: list[DuetConfig], budget: float, visual: int, layers: int) -> DuetConfig:
    """The one whose layer average is nearest to the budget."""
    return min(configs, key=lambda config: abs(sum(tokens_per_layer(config, visual, layers)) / layers - budget))
