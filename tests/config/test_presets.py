"""Budgets: the published rows exactly, any other within half a token or refused; methods joined by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from duet_vlm import Drop, DuetConfig
from duet_vlm.config.budget import keep_count, tokens_per_layer
from duet_vlm.config.methods import CHANGES, names, stages
from duet_vlm.config.registry import SCHEDULES, STAGE1


def llava(side: int = 24, layers: int = 32) -> LlavaConfig:
    vision = CLIPVisionConfig(image_size=14 * side, patch_size=14)
    return LlavaConfig(vision_config=vision, text_config=LlamaConfig(num_hidden_layers=layers))


def average(config: DuetConfig, visual_tokens: int, layers: int) -> float:
    """Layer by layer, from docs/method.md, Budgets."""
    entering = visual_tokens if config.dominant is None else int(config.dominant) + int(config.contextual)
    if config.downsample is not None:
        entering = config.downsample[0] * config.downsample[1]
    total = 0
    for layer in range(layers):
        ratios = [d.keep for d in config.drops if d.layer <= layer]
        total += int(ratios[-1] * entering + 1e-6) if ratios else entering
    return total / layers


@pytest.mark.parametrize(("tokens", "k1", "k2"), [(192, 300, 7), (128, 170, 35), (64, 85, 17)])
def test_published_duet_rows(tokens: int, k1: int, k2: int) -> None:
    config = DuetConfig.preset("duet", model=llava(), tokens=tokens)
    assert (config.dominant, config.contextual, config.cluster_width) == (k1, k2, 4)
    assert config.drops == (Drop(16, 0.5), Drop(24, 0.0))
    assert config.query == "salient" and config.positions == "auto"
    assert DuetConfig.preset("duet", model=llava(), keep=tokens / 576) == config


@pytest.mark.parametrize(("tokens", "k1", "k2"), [(192, 162, 30), (128, 108, 20), (64, 54, 10)])
def test_published_visionzip_rows(tokens: int, k1: int, k2: int) -> None:
    config = DuetConfig.preset("visionzip", model=llava(), tokens=tokens)
    assert (config.dominant, config.contextual, config.merging, config.drops) == (k1, k2, "visionzip", ())


def test_published_pyramiddrop_and_fastv() -> None:
    config = DuetConfig.preset("pyramiddrop", model=llava(), tokens=270)
    assert [d.layer for d in config.drops] == [8, 16, 24] and config.query == "last" and config.dominant is None
    assert [keep_count(d.keep, 576) for d in config.drops] == [288, 144, 72]
    config = DuetConfig.preset("fastv", model=llava(), tokens=306)
    assert config.drops == (Drop(2, 0.5, rank_at=1),) and config.query == "last"


BUDGETED = [name for name, row in STAGE1.items() if row.budgeted]
PAIRS = [f"{first}+{second}" for first in (*BUDGETED, "none") for second in (*SCHEDULES, "none")]
NAMES = [name for name in names() if name not in STAGE1 or name in BUDGETED]


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(st.sampled_from(NAMES), st.sampled_from(PAIRS)),
    st.integers(4, 32),
    st.integers(2, 80),
    st.floats(0.02, 1.0),
)
def test_budget_is_met_within_half_a_token_or_refused(name: str, side: int, layers: int, keep: float) -> None:
    visual_tokens, model = side * side, llava(side, layers)
    first, second = stages(name)
    if (first, second) == ("none", "none"):
        return
    try:
        config = DuetConfig.preset(name, model=model, keep=keep)
    except ValueError as error:
        assert "cannot meet a budget" in str(error)
        least, most = reach(first, second, visual_tokens, layers)
        assert not least <= keep * visual_tokens <= most
        return
    if first == "downsample":
        assert config.downsample is not None and max(config.downsample) <= 2 * min(config.downsample)
        shapes = [(r, c) for r in range(1, side + 1) for c in range(1, side + 1) if max(r, c) <= 2 * min(r, c)]
        others = [replace(config, downsample=shape) for shape in shapes]  # none of which is nearer
        off = [abs(average(one, visual_tokens, layers) - keep * visual_tokens) for one in (config, *others)]
        assert off[0] <= min(off[1:]) + 1e-6
    else:
        assert abs(average(config, visual_tokens, layers) - keep * visual_tokens) <= 0.5 + 1e-6
    counts = tokens_per_layer(config, visual_tokens, layers)
    assert sum(counts) / layers == average(config, visual_tokens, layers)
    assert (config.dominant is not None) == (first not in ("none", "downsample"))
    merging = CHANGES.get(name, {}).get("merging", first)
    assert config.merging == (merging if config.dominant is not None else "duet")
    assert config.ranking == ("attention" if second == "none" else SCHEDULES[second].ranking)


def reach(first: str, second: str, n: int, layers: int) -> tuple[float, float]:
    """Budgets that certainly can be met, in closed form: on deep decoders, with a margin for whole tokens."""
    if layers < 8:
        return (2, n) if second == "none" else (n, 0)
    pyramid = [(layers // 4, 0.5), (layers // 2, 0.25), (3 * layers // 4, 0.125)]
    late = [(layers // 2, 0.5), (3 * layers // 4, 0.0)]
    sparse = [(round(k * layers / 32), r) for k, r in ((2, 0.52), (6, 0.35), (15, 0.19))]
    known = {
        "none": [],
        "duet": late,
        "random": late,
        "pyramiddrop": pyramid,
        "sparsevlm": sparse,
        "fastv": [(2, 0.5)],
        "keynorm": [(2, 0.5)],
    }
    drops = known[second] if second in known else sorted(SCHEDULES[second].at(layers, (0.5, 0.0)).items())
    if first == "none":  # all but one token dropped at layer 1; kept whole up to the last layer that drops all
        return n / layers + 1, (3 * layers // 4) * n / layers - 1 if drops == late else n
    edges = [layer for layer, _ in drops] + [layers]
    share = edges[0] + sum(r * (edges[i + 1] - edges[i]) for i, (_, r) in enumerate(drops))
    return 4, share * n / layers - 1


@pytest.mark.parametrize("keep", [0.33, 0.22, 0.11])
@pytest.mark.parametrize(("layers", "side"), [(32, 24), (12, 14)])
def test_baselines_meet_the_budget_of_what_they_are_compared_with(layers: int, side: int, keep: float) -> None:
    n, model = side * side, llava(side, layers)
    wanted = average(DuetConfig.preset("duet", model=model, keep=keep), n, layers)
    for name in ("random", "uniform", "pool", "random+duet", "uniform+duet", "duet+random", "visionzip+fastv"):
        got = average(DuetConfig.preset(name, model=model, tokens=wanted), n, layers)
        assert abs(got - wanted) <= 0.5, name


@pytest.mark.parametrize("name", NAMES)
def test_settings_survive_json(name: str) -> None:
    config = DuetConfig.preset(name, model=llava(14, 12), keep=0.22, combine="mean")
    assert DuetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_random_and_uniform_behind_duets_drops_keep_what_duet_keeps() -> None:
    duet = DuetConfig.preset("duet", model=llava(), tokens=192)
    counts = tokens_per_layer(duet, 576, 32)
    for name in ("random+duet", "uniform+duet", "duet+random"):
        config = DuetConfig.preset(name, model=llava(), tokens=sum(counts) / 32)
        assert tokens_per_layer(config, 576, 32) == counts, name


@pytest.mark.parametrize("budget", [dict(tokens=192), dict(keep=0.2)])
def test_duet_plus_is_duet_with_options(budget: dict[str, float]) -> None:
    duet = DuetConfig.preset("duet", model=llava(), **budget)
    plus = DuetConfig.preset("duet-plus", model=llava(), **budget)
    assert plus == replace(duet, merging="visionzip", diverse=True)
    assert DuetConfig.preset("duet-plus", model=llava(), **budget, diverse=False) == replace(plus, diverse=False)
    assert tokens_per_layer(plus, 576, 32) == tokens_per_layer(duet, 576, 32)


def test_stages_are_joined_by_name() -> None:
    config = DuetConfig.preset("visionzip+fastv", model=llava(), tokens=128)
    assert config.drops == (Drop(2, 0.5, rank_at=1),) and config.query == "last" and config.merging == "visionzip"
    both = [DuetConfig.preset(name, model=llava(), tokens=192) for name in ("duet", "duet+duet")]
    assert both[0] == both[1]
    alone = DuetConfig.preset("duet+none", model=llava(), tokens=192)
    assert alone.drops == () and (alone.dominant, alone.contextual) == (160, 32)
    late = DuetConfig.preset("none+duet", model=llava(), tokens=350)
    assert late.dominant is None and [d.layer for d in late.drops] == [16, 24] and late.drops[1].keep == 0
    sparse = DuetConfig.preset("sparsevlm", model=llava(), tokens=192)
    assert [d.layer for d in sparse.drops] == [2, 6, 15] and (sparse.query, sparse.ranking) == ("all", "sparsevlm")
    # the authors' own counts, 300, 200 and 110, average to 191 with these layers
    for drop, count in zip(sparse.drops, (300, 200, 110), strict=True):
        assert abs(keep_count(drop.keep, 576) - count) <= 6


@pytest.mark.parametrize(("name", "layers"), [("pyramiddrop", [2, 4, 6]), ("fastv", [2]), ("none+duet", [3, 4])])
def test_drop_layers_move_where_they_come_too_late(name: str, layers: list[int]) -> None:
    config = DuetConfig.preset(name, model=llava(), tokens=64)
    assert [d.layer for d in config.drops] == layers and abs(average(config, 576, 32) - 64) <= 0.5
    assert [d.rank_at for d in config.drops] == [1 if name == "fastv" else None] * len(layers)
    shallow = DuetConfig.preset(name, model=llava(14, 12), keep=0.11)
    assert shallow.drops[0].layer == 1 and abs(average(shallow, 196, 12) - 0.11 * 196) <= 0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tome", "method 'tome' is unknown: choose one of duet, duet-plus, visionzip, random, uniform"),
        ("fastv+duet", "'fastv' is no stage 1, which is one of duet, visionzip"),
        ("duet+uniform", "'uniform' is no stage 2, which is one of duet, pyramiddrop, fastv"),
        ("duet+", "'' is no stage 2"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        DuetConfig.preset(name, model=llava(), tokens=64)
    assert str(error.value).endswith(".") and len(str(error.value)) < 260


@pytest.mark.parametrize(("video", "k1", "k2"), [(960, 160, 32), (136, 22, 5)])
def test_published_video_llava_rows(video: int, k1: int, k2: int) -> None:
    config = DuetConfig.preset("duet", model=llava(16), tokens=video / 8)
    assert (config.dominant, config.contextual, config.drops) == (k1, k2, (Drop(16, 0.5), Drop(24, 0.0)))
