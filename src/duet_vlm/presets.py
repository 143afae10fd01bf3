"""Published methods by name, at any budget: name and budget -> DuetConfig. METHOD: "Budgets"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .budget import tokens_per_layer
from .config import Drop, DuetConfig


def preset(
    name: str, *, model: Any = None, tokens: float | None = None, keep: float | None = None, **changes: Any
) -> DuetConfig:
    """A published method at a budget.

    The budget is the number of visual tokens per image (per crop for AnyRes) that a decoder layer processes, averaged
    over the layers; text is never counted. It is met within half a token, on any depth and any number of visual tokens.
    Budgets that the authors published settings for give exactly these.

    Args:
        name: "duet", "visionzip", "pyramiddrop", "fastv" or "none".
        model: a supported transformers model, or its config.
        tokens: the budget in tokens, or
        keep: the budget as a fraction of the image's visual tokens.
        changes: fields of `DuetConfig` to set afterwards, for example `query="all"`.

    Raises:
        ValueError: unknown name, no budget or two, or a budget that the method cannot meet on this model.
    """
    from .families import facts_of

    if name not in SOLVERS:
        raise ValueError(f"method {name!r} is unknown: choose one of {', '.join(SOLVERS)}.")
    if name == "none":
        return DuetConfig(**changes)
    if model is None:
        raise ValueError(f"preset {name!r} needs model=: the model to compress, or its config.")
    if (tokens is None) == (keep is None):
        raise ValueError("give the budget once: either tokens=, an average per layer, or keep=, a fraction in (0, 1].")
    facts = facts_of(model)
    if keep is not None:
        if not 0 < keep <= 1:
            raise ValueError(f"keep {keep!r} must be a fraction in (0, 1].")
        tokens = keep * facts.visual_tokens
    assert tokens is not None
    solved = PUBLISHED.get((name, facts.visual_tokens, facts.layers, round(tokens)))
    if solved is None or abs(tokens - round(tokens)) > 0.5:
        solved = SOLVERS[name](float(tokens), facts.visual_tokens, facts.layers)
    return DuetConfig.from_dict(solved | changes)


def _published(dominant: int, contextual: int) -> dict[str, Any]:
    return {"dominant": dominant, "contextual": contextual, "drops": [Drop(16, 0.5), Drop(24, 0.0)]}


# (method, visual tokens, decoder layers, budget) -> the authors' own settings
PUBLISHED: dict[tuple[str, int, int, int], dict[str, Any]] = {
    ("duet", 576, 32, 192): _published(300, 7),
    ("duet", 576, 32, 128): _published(170, 35),
    ("duet", 576, 32, 64): _published(85, 17),
}


def duet(budget: float, visual_tokens: int, layers: int) -> dict[str, Any]:
    """DUET-VLM: drops at L/2 and 3L/4 with ratios 0.5 and 0; the budget fixes K1 + K2, split 5 : 1."""
    # on two layers or one the drop layers fall together or vanish
    halfway, late = layers // 2, 3 * layers // 4
    drops = [Drop(layer, ratio) for layer, ratio in ((halfway, 0.5), (late, 0.0)) if layer >= 1]
    drops = drops[-1:] if halfway == late else drops

    def settings(entering: int) -> dict[str, Any]:
        contextual = round(entering / 6)
        return {"dominant": entering - contextual, "contextual": contextual, "drops": drops}

    return _closest("duet", budget, visual_tokens, layers, settings, least=2)


def visionzip(budget: float, visual_tokens: int, layers: int) -> dict[str, Any]:
    """VisionZip (arXiv 2412.04467): stage 1 alone, split 27 : 5."""

    def settings(entering: int) -> dict[str, Any]:
        contextual = round(entering * 5 / 32)
        return {"dominant": entering - contextual, "contextual": contextual, "merging": "visionzip"}

    return _closest("visionzip", budget, visual_tokens, layers, settings, least=2)


def pyramiddrop(budget: float, visual_tokens: int, layers: int) -> dict[str, Any]:
    """PyramidDrop (arXiv 2410.17247): drops at L/4, L/2 and 3L/4 with ratios r, r^2, r^3, ranked by the last token."""
    at = sorted({layer for layer in (layers // 4, layers // 2, 3 * layers // 4) if layer >= 1})

    def settings(step: int) -> dict[str, Any]:
        # r is solved on a grid fine enough that neighbours differ by single tokens
        ratio = step / (8 * visual_tokens)
        drops = [Drop(layer, ratio**power) for power, layer in enumerate(at, start=1)]
        return {"drops": drops, "query": "last"}

    return _closest("pyramiddrop", budget, visual_tokens, layers, settings, least=0, most=8 * visual_tokens)


def fastv(budget: float, visual_tokens: int, layers: int) -> dict[str, Any]:
    """FastV (arXiv 2403.06764): one drop at layer 2, ranked by the last token with the layer just run."""
    at = min(2, layers - 1)

    def settings(kept: int) -> dict[str, Any]:
        drops = [Drop(at, kept / visual_tokens, rank_at=at - 1)] if at >= 1 else []
        return {"drops": drops, "query": "last"}

    return _closest("fastv", budget, visual_tokens, layers, settings, least=0)


SOLVERS: dict[str, Callable[[float, int, int], dict[str, Any]]] = {
    "duet": duet,
    "visionzip": visionzip,
    "pyramiddrop": pyramiddrop,
    "fastv": fastv,
    "none": lambda budget, visual_tokens, layers: {},
}


def _closest(
    name: str,
    budget: float,
    visual_tokens: int,
    layers: int,
    settings: Callable[[int], dict[str, Any]],
    least: int,
    most: int | None = None,
) -> dict[str, Any]:
    """The settings whose average is closest to the budget; `settings(n)` costs more with every n."""

    def average(n: int) -> float:
        counts = tokens_per_layer(DuetConfig(**settings(n)), visual_tokens, layers)
        return sum(counts) / layers

    low, high = least, visual_tokens if most is None else most
    reach = average(low), average(high)
    if not reach[0] - 0.5 <= budget <= reach[1] + 0.5:
        raise ValueError(
            f"{name} cannot meet a budget of {budget:g} tokens here: with {visual_tokens} visual tokens and {layers} "
            f"layers it reaches {reach[0]:g} to {reach[1]:g}; choose a budget in that range or another method."
        )
    while high - low > 1:
        middle = (low + high) // 2
        if average(middle) <= budget:
            low = middle
        else:
            high = middle
    best = min((low, high), key=lambda n: abs(average(n) - budget))
    if abs(average(best) - budget) > 0.5:
        raise ValueError(
            f"{name} cannot meet a budget of {budget:g} tokens within half a token on {layers} layers: "
            f"the closest is {average(best):g}."
        )
    return settings(best)
