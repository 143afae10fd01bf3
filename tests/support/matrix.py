"""The axes of the engine's matrix: every family of the zoo, the settings, both attentions, and the prompts."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import zoo

import duet_vlm
from duet_vlm import Drop, DuetConfig

LATE = dict(drops=[Drop(2, 0.5), Drop(4, 0.25)])
# dominant and contextual are the family's own, but where a setting has no stage 1
CONFIGS: dict[str, dict[str, Any]] = {
    "both stages": dict(cluster_width=3, **LATE),
    "both stages, keep positions": dict(cluster_width=3, **LATE, positions="keep", query="all"),
    "all gone late": dict(cluster_width=3, drops=[Drop(2, 0.5), Drop(3, 0.0)]),
    "proportional": dict(cluster_width=3, **LATE, proportional=True),
    "stage 1 alone": dict(merging="visionzip"),
    "stage 2 alone": dict(drops=[Drop(1, 0.6, rank_at=0), Drop(3, 0.0)], query="last"),
    "stage 2 alone, ranked where it drops": dict(drops=[Drop(1, 0.6), Drop(3, 0.3)], query="last"),
}
WITHOUT_STAGE_1 = ("stage 2 alone", "stage 2 alone, ranked where it drops")
ROWS: zoo.Rows = ((5, "i", 9), (2, "i", 3, "i", 6), (12,))
VIDEO_ROWS: zoo.Rows = ((5, "v", 6), (2, "i", 3, "v", 6), (7, "i", 4))

family = pytest.mark.parametrize("family", zoo.FAMILIES)
seeing = pytest.mark.parametrize("family", zoo.SEEING)
attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])
config = pytest.mark.parametrize("name", CONFIGS)
stages = pytest.mark.parametrize("name", ["both stages", "proportional"])


def settings(family: str, name: str = "both stages") -> DuetConfig:
    member = zoo.FAMILIES[family]
    counts = None if name in WITHOUT_STAGE_1 else member.stage_1
    stage_1: dict[str, Any] = {} if counts is None else {"dominant": counts[0], "contextual": counts[1]}
    merging = {"merging": member.merging} if stage_1 and member.merging != "duet" else {}
    return DuetConfig(**stage_1 | CONFIGS[name] | merging | member.more)


def apply(model: Any, family: str = "llava", name: str = "both stages") -> duet_vlm.Duet:
    return duet_vlm.apply(model, settings(family, name), tokenizer=tiny.Words())


def rows_of(family: str) -> zoo.Rows:
    """Three rows: one image or video, two of them, and text alone or an image."""
    return VIDEO_ROWS if zoo.has_video(family) else ROWS
