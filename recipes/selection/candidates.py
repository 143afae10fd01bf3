"""What is compared when `duet-plus` is chosen: stage 1 methods, two of them our own, options, and drop layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from duet_vlm import Drop, DuetConfig, register_stage1
from duet_vlm.evaluation.ablations import nearest
from duet_vlm.evaluation.runs import Run
from duet_vlm.families import facts_of
from duet_vlm.stage1 import Encoded, Merge, selected

NAMED = (
    "duet", "visionzip", "divprune", "pyramiddrop", "random", "scope", "mmr", "tops", "scope+duet", "divprune+duet",
    "mmr+duet", "visionzip+duet",
)  # fmt: skip
# behind each of the drop layers
OPTIONS: dict[str, dict[str, Any]] = {
    "scope": {},
    "scope, query all": {"query": "all"},
    "scope, positions kept": {"positions": "keep"},
    "scope, rest": {"rest": True},
    "scope, rest, proportional": {"rest": True, "proportional": True},
    "scope centred": {"merging": "scope-centred"},
    "weighted cover": {"merging": "weighted-cover"},
    "divprune": {"merging": "divprune"},
    "mmr": {"merging": "mmr"},
    "visionzip, diverse": {"merging": "visionzip", "diverse": True},
}


def _covering(worth: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Encoded, int, int, int], Merge]:
    """A stage 1 by the coverage of centred features; `worth(scores, gains (B, N, N) of i over j)` -> (B, N)."""

    def method(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
        features = encoded.features.float()
        direction = torch.nn.functional.normalize(features - features.mean(1, keepdim=True), dim=-1)
        similar = direction @ direction.transpose(1, 2)
        near = torch.zeros_like(encoded.scores, dtype=torch.float32)
        closed = torch.zeros_like(near)
        chosen = []
        for _ in range(dominant + contextual):
            values = worth(encoded.scores.float(), (similar - near[:, None]).clamp(min=0))
            place = (values + closed).argmax(1, keepdim=True)
            chosen.append(place)
            closed = closed.scatter(1, place, -torch.inf)
            near = near.maximum(similar.gather(1, place[..., None].expand(-1, -1, near.shape[1]))[:, 0])
        return selected(encoded, torch.cat(chosen, 1))

    return method


def register() -> None:
    """Give our own two names: the score of the chosen token counts, or that of the tokens that it covers."""
    register_stage1("scope-centred", _covering(lambda scores, gains: scores * gains.sum(2)))
    register_stage1("weighted-cover", _covering(lambda scores, gains: (gains * scores[:, None]).sum(2)))


def candidates(model: Any, keep: float, only: list[str]) -> tuple[list[Run], list[str]]:
    """Named methods, and the options at the published drop layers, at a third and two thirds, a quarter and a half.

    Also the reasons of those that cannot meet the budget.
    """
    facts = facts_of(model.config)
    whole, layers = facts.visual_tokens, facts.layers
    assert whole is not None
    configs, problems = dict[str, DuetConfig](), list[str]()
    for name in NAMED:
        try:
            configs[name] = DuetConfig.preset(name, model=model, keep=keep)
        except ValueError as error:
            problems.append(str(error))
    for late, gone in ((layers // 2, 3 * layers // 4), (layers // 3, 2 * layers // 3), (layers // 4, layers // 2)):
        for name, changes in OPTIONS.items():
            many = [_behind(entering, [Drop(late, 0.5), Drop(gone, 0.0)], changes) for entering in range(4, whole + 1)]
            configs[f"{name}, {late}:.5 {gone}:0"] = nearest(many, keep * whole, whole, layers)
    return [Run(name, config, keep) for name, config in configs.items() if not only or name in only], problems


def _behind(entering: int, drops: list[Drop], changes: dict[str, Any]) -> DuetConfig:
    made = {"merging": "scope"} | changes
    contextual = round(entering / 6) if made["merging"] == "visionzip" else int("rest" in made)
    return DuetConfig(dominant=entering - contextual, contextual=contextual, drops=drops, **made)
