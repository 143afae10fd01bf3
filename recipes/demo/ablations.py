"""What budgets, drops at each layer and other selections cost the demonstration model: the tables of the model card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from duet_vlm.demo.evaluate import HELD_OUT_SEED, evaluate
from duet_vlm.demo.model import TEXT_LAYERS, VISUAL_TOKENS

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    from duet_vlm import DuetConfig

RANDOM_TOKENS = 21  # 11% of 196, CLS among them


def budgets(model: LlavaForConditionalGeneration, keeps: Sequence[float]) -> dict[str, DuetConfig | None]:
    """Name -> what to apply: preset "duet" at each budget, nothing at 1."""
    from duet_vlm import DuetConfig

    return {f"{k:.0%}": None if k == 1 else DuetConfig.preset("duet", model=model, keep=k) for k in keeps}


def settings(model: LlavaForConditionalGeneration) -> dict[str, DuetConfig | None]:
    """Name -> what to apply: nothing, every visual token dropped at each layer, selections at 11% of the tokens."""
    from duet_vlm import Drop, DuetConfig

    curve = {f"drop all at layer {i}": DuetConfig(drops=[Drop(i, 0.0)], query="last") for i in range(1, TEXT_LAYERS)}
    keep = RANDOM_TOKENS / VISUAL_TOKENS
    return {
        "full": None,
        **curve,
        "random 11%": DuetConfig(merging="random", dominant=RANDOM_TOKENS, contextual=0),
        "visionzip 11%": DuetConfig.preset("visionzip", model=model, keep=keep),
        "duet 11%": DuetConfig.preset("duet", model=model, keep=keep),
    }


def ablations(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    questions: int,
    seed: int = HELD_OUT_SEED,
    advance: Callable[[str, dict], None] = lambda name, result: None,
    chosen: dict[str, DuetConfig | None] | None = None,
) -> dict[str, dict]:
    """Every setting, those of `settings` unless others are `chosen` -> the result of `evaluate` under it."""
    import duet_vlm

    results = {}
    for name, setting in (settings(model) if chosen is None else chosen).items():
        if setting is None:
            results[name] = evaluate(model, processor, questions, seed)
        else:
            with duet_vlm.apply(model, setting, tokenizer=processor):
                results[name] = evaluate(model, processor, questions, seed)
        advance(name, results[name])
    return results
