"""Methods that a user brings: by name in presets, budgets and commands, or as a function; sets in stage 2; refusals."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hostile import VALUES, one_sentence
from oracle import masked_prefill, stage_2_keep
from saved import photo, save
from torch import Tensor

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config import registry
from duet_vlm.config.budget import tokens_per_layer
from duet_vlm.stage1 import Encoded, Merge, selected
from duet_vlm.stage2.ranking import RankingInputs

PLUGIN = """
import duet_vlm
from duet_vlm.stage1 import selected

def longest(encoded, dominant, contextual, cluster_width):
    best = encoded.features.norm(dim=-1).argsort(dim=1, descending=True, stable=True)
    return selected(encoded, best[:, : dominant + contextual])

duet_vlm.register_stage1("longest", longest, paper="2601.00001", discards=True)
"""

pytestmark = pytest.mark.usefixtures("own_methods")


def longest(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
    best = encoded.features.norm(dim=-1).argsort(dim=1, descending=True, stable=True)
    return selected(encoded, best[:, : dominant + contextual])


def spread(inputs: RankingInputs) -> Tensor:
    """A set: of each image the token of the longest hidden state, then always the one farthest from all chosen."""
    chosen = torch.zeros_like(inputs.visual)
    for row, spans in enumerate(inputs.spans):
        for span in spans[spans > 0].unique().tolist():
            inside = (spans == span).nonzero()[:, 0]
            x = inputs.hidden[row, inside]
            gap = torch.full_like(x[:, 0], torch.inf)
            place = x.norm(dim=-1).argmax()
            for _ in range(int(inputs.limits[span])):
                chosen[row, inside[place]] = True
                gap = gap.minimum((x - x[place]).norm(dim=-1))
                gap[place] = -1
                place = gap.argmax()
    return chosen


@pytest.mark.engine
def test_a_method_of_ones_own_at_a_budget() -> None:
    duet_vlm.register_stage1("longest", longest, paper="2601.00001", discards=True)
    model, batch = tiny.build(), tiny.inputs()
    config = DuetConfig.preset("longest+fastv", model=model, tokens=12, query="last")
    assert config.merging == "longest" and config.contextual == 0
    assert abs(sum(tokens_per_layer(config, 36, tiny.LAYERS)) / tiny.LAYERS - 12) <= 0.5
    alone = DuetConfig.preset("longest", model=model, tokens=12)
    assert DuetConfig.from_dict(json.loads(json.dumps(alone.to_dict()))) == alone
    with torch.no_grad(), duet_vlm.apply(model, alone) as handle:
        model(**batch)
        assert handle.trace is not None and model.config.duet == alone.to_dict()
        seen: list[Tensor] = []
        tower = model.model.vision_tower.encoder.layers[-2 + len(model.model.vision_tower.encoder.layers)]
        watch = tower.register_forward_hook(lambda m, a, out: seen.append(out[0] if isinstance(out, tuple) else out))
        model(**batch)
        watch.remove()
    norms = seen[0][0, 1:].norm(dim=-1).tolist()
    best = sorted(range(36), key=lambda i: -norms[i])[: 12 - 1]  # CLS is one of the twelve
    assert handle.trace.images[0].dominant == sorted(best)
    rest = DuetConfig(dominant=9, contextual=1, merging="longest", rest=True)
    assert rest.stage1_method.discards
    with pytest.raises(DuetError, match="diverse has no meaning for merging 'longest': use it with duet or"):
        DuetConfig(dominant=9, merging="longest", diverse=True)


@pytest.mark.engine
def test_a_set_is_what_the_naive_loop_chooses_and_what_the_layers_see() -> None:
    duet_vlm.register_stage2("spread", spread, ratios={"1/2": 0.5, 4: 0.25}, query="all")
    model, batch = tiny.build(), tiny.inputs("llava", ((5, 9), (2, 3, 6)))
    drops = DuetConfig.preset("none+spread", model=model, keep=0.7).drops
    assert [drop.layer for drop in drops] == [2, 4]
    config = DuetConfig(drops=[Drop(2, 0.5), Drop(4, 0.25)], query="all", ranking="spread")
    layers, hidden = model.model.language_model.layers, dict[int, Tensor]()
    with torch.no_grad(), duet_vlm.apply(model, config) as handle:
        out = model(**batch)
        assert handle.trace is not None
    alive: dict[int, Tensor] = {}
    for layer in (2, 4):
        alive[layer] = batch["attention_mask"].bool() & (batch["input_ids"] != tiny.IMAGE)
        for row, sample in enumerate(handle.trace.samples):
            drop = next(d for d in sample.drops if d.layer == layer)
            alive[layer][row, drop.kept] = True
            assert sorted(place for place, score in zip(drop.ranked, drop.scores, strict=True) if score) == drop.kept
    expected, there = masked_prefill(model, batch, alive, True)
    torch.testing.assert_close(out.logits[there], model.lm_head(expected)[there], atol=2e-5, rtol=2e-5)
    # the naive loop, on the hidden states of the stock layers that nothing was dropped before
    watch = layers[2].register_forward_pre_hook(lambda m, a: hidden.update({2: a[0]}))
    with torch.no_grad():
        model(**batch)
    watch.remove()
    for row, sample in enumerate(handle.trace.samples):
        places = [i for i, token in enumerate(batch["input_ids"][row].tolist()) if token == tiny.IMAGE]
        wanted: list[int] = []
        for image in (places[i : i + 36] for i in range(0, len(places), 36)):
            x = {i: hidden[2][row, i].double() for i in image}
            chosen = [max(image, key=lambda i: float(x[i].norm()))]
            while len(chosen) < 18:
                left = [i for i in image if i not in chosen]
                chosen.append(max(left, key=lambda i: min(float((x[i] - x[j]).norm()) for j in chosen)))
            wanted += chosen
        assert sample.drops[0].kept == sorted(wanted)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda inputs: inputs.visual, r"chose \[0, 36\] tokens of text and of each image, and the drop keeps \[0, 18"),
        (lambda inputs: ~inputs.visual, r"chose \[14, 0\] tokens of text"),
        (lambda inputs: inputs.hidden, r"must return \(1, 50\) floating scores or a bool set.* returned \(1, 50, 32"),
        (lambda inputs: inputs.spans, r"returned \(1, 50\) of torch.int64"),
        (lambda inputs: None, "returned None"),
    ],
)  # fmt: skip
def test_a_ranking_that_returns_something_else(wrong: Any, message: str) -> None:
    model, batch = tiny.build(), tiny.inputs()
    config = DuetConfig(drops=[Drop(2, 0.5)], query="last", ranking=wrong)
    with torch.no_grad(), duet_vlm.apply(model, config), pytest.raises(DuetError, match=message) as error:
        model(**batch)
    one_sentence(error)


@pytest.mark.engine
def test_scores_of_ones_own_keep_the_best() -> None:
    model, batch = tiny.build(), tiny.inputs("llava", ((5, 9), (2, 3, 6)))
    config = DuetConfig(drops=[Drop(2, 0.4)], query="last", ranking=lambda inputs: inputs.hidden[..., 3])
    with torch.no_grad(), duet_vlm.apply(model, config) as handle:
        model(**batch)
        assert handle.trace is not None
    for sample in handle.trace.samples:
        (drop,) = sample.drops
        first = min(sample.visual)
        spans = [0 if i not in sample.visual else 1 + (i >= first + 36) for i in range(max(sample.visual) + 1)]
        scores = dict(zip(drop.ranked, drop.scores, strict=True))
        listed = [scores.get(i, 0.0) for i in range(len(spans))]
        assert set(drop.kept) == stage_2_keep(listed, spans, {span: 14 for span in set(spans) - {0}})


@pytest.mark.engine
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda e, k1, k2, w: None, "must return a Merge, and it returned None"),
        (lambda e, k1, k2, w: longest(e, k1 + 1, k2, w), r"dominant and anchors together of shape \(1, 11\), and they"),
    ],
)
def test_a_stage_1_that_returns_something_else(wrong: Any, message: str) -> None:
    model, batch = tiny.build(), tiny.inputs()
    config = DuetConfig(dominant=9, contextual=3, merging=wrong)
    with torch.no_grad(), duet_vlm.apply(model, config), pytest.raises(DuetError, match=message) as error:
        model(**batch)
    one_sentence(error)


@pytest.mark.engine
def test_a_function_without_a_name_works_and_is_not_saved() -> None:
    model, batch = tiny.build(), tiny.inputs()
    model.config.duet = before = DuetConfig(dominant=5).to_dict()
    config = DuetConfig(dominant=9, contextual=3, merging=longest)
    for other in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config and hash(other) == hash(config)
    assert config != DuetConfig(dominant=9, contextual=3)
    with torch.no_grad(), duet_vlm.apply(model, config) as handle:
        model(**batch)
        assert handle.trace is not None and len(handle.trace.images[0].dominant) == 11
        assert not hasattr(model.config, "duet")
        handle.use(DuetConfig(dominant=7))
        assert model.config.duet == DuetConfig(dominant=7).to_dict()
        handle.use(config)
        assert not hasattr(model.config, "duet")
    assert model.config.duet == before
    with pytest.raises(DuetError, match="merging longest has no name to be saved under: give it one with") as error:
        config.to_dict()
    one_sentence(error)
    duet_vlm.register_stage1("longest", longest)
    named = DuetConfig(dominant=9, contextual=3, merging=longest)
    assert named.merging == "longest" and named == DuetConfig(dominant=9, contextual=3, merging="longest")


def test_a_function_of_the_package_is_its_name() -> None:
    from duet_vlm.stage1.divprune import divprune
    from duet_vlm.stage2.keynorm import keynorm

    config = DuetConfig(dominant=9, merging=divprune, ranking=keynorm)
    assert (config.merging, config.ranking) == ("divprune", "keynorm")


def test_a_schedule_alone_and_the_familys_own_ratios() -> None:
    duet_vlm.register_stage2("early", "attention", ratios={"1/4": None, "1/2": None}, query="last")
    duet_vlm.register_stage2("late", "keynorm", ratios={"1/4": 0.5, "3/4": 0.25}, rank_before=True)
    model = tiny.build()
    early = DuetConfig.preset("duet+early", model=model, tokens=9)
    assert early.drops == (Drop(1, 0.5), Drop(2, 0.0)) and (early.ranking, early.query) == ("attention", "last")
    late = DuetConfig.preset("duet+late", model=model, tokens=9)
    assert late.drops == (Drop(1, 0.5, rank_at=0), Drop(3, 0.25, rank_at=2)) and late.ranking == "keynorm"
    assert "late" not in registry.RANKINGS and {"early", "late"} <= set(registry.SCHEDULES)


def test_a_name_can_be_given_again_but_not_one_of_the_package() -> None:
    duet_vlm.register_stage1("mine", longest)
    duet_vlm.register_stage1("mine", lambda e, k1, k2, w: longest(e, k1, k2, w), contextual="1/4")
    assert registry.STAGE1["mine"].contextual == "1/4"
    for name in ("duet", "fastv", "attention", "downsample", "none", "duet-plus", "saved"):
        for register, function in ((duet_vlm.register_stage1, longest), (duet_vlm.register_stage2, spread)):
            with pytest.raises(DuetError, match=f"method name '{name}' is taken by duet-vlm itself") as error:
                register(name, function)  # type: ignore[operator]
            one_sentence(error)


STAGE1_ARGUMENTS = ("name", "function", "paper", "contextual", "scored", "discards", "averages")
STAGE2_ARGUMENTS = ("name", "ranking", "paper", "ratios", "query", "rank_before", "debias")


@pytest.mark.parametrize("argument", [*(f"1 {a}" for a in STAGE1_ARGUMENTS), *(f"2 {a}" for a in STAGE2_ARGUMENTS)])
def test_any_value_registers_or_is_one_sentence(argument: str) -> None:
    stage, name = argument.split()
    if stage == "1":
        register: Any = duet_vlm.register_stage1
        good: dict[str, Any] = dict(name="mine", function=longest)
    else:
        register, good = duet_vlm.register_stage2, dict(name="mine", ranking=spread)
    values = [
        *VALUES.values(),
        {"3/2": 0.5},
        {"1/0": 0.5},
        {0: 0.5},
        {2: 1.5},
        {2: None, 3: None, 4: None},
        "1/1",
        "a+b",
    ]
    refusals = 0
    for value in values:
        try:
            register(**good | {name: value})
        except ValueError as error:
            one_sentence(error)
            refusals += 1
        else:
            schedule = "mine" if stage == "2" else "duet"
            known = registry.SCHEDULES.get(schedule)
            assert known is None or all(0 < layer < 32 for layer in known.at(32, (0.5, 0.0)))
    assert refusals > len(values) // 2


def plugin(folder: Path, text: str = PLUGIN) -> dict[str, str]:
    """The environment of a command beside an installed package that has an entry point."""
    (folder / "longest_method.py").write_text(text)
    info = folder / "longest_method-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: longest-method\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[duet_vlm.methods]\nlongest = longest_method\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def command(env: dict[str, str], *arguments: Any) -> subprocess.CompletedProcess[str]:
    given = [sys.executable, "-m", "duet_vlm", *map(str, arguments)]
    return subprocess.run(given, env=env, capture_output=True, text=True)


@pytest.mark.engine
def test_the_commands_find_a_plug_in(tmp_path: Path) -> None:
    env = plugin(tmp_path)
    save(tmp_path / "model")
    photo(tmp_path / "photo.png")
    question = {"id": "q", "image": "photo.png", "question": "what is it ?", "answer": "red"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    common = ["--model", tmp_path / "model", "--device", "cpu", "--max-new-tokens", 2]
    ran = command(env, "run", tmp_path / "photo.png", "--ask", "what is it ?", *common, "--method", "longest+duet",
                  "--keep", 0.25, "--json", "-")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["config"]["merging"] == "longest"
    out = tmp_path / "out"
    found = command(env, "eval", "--data", tmp_path / "questions.jsonl", *common, "--methods", "longest", "--keep",
                    0.25, "--out", out)  # fmt: skip
    assert found.returncode == 0, found.stderr
    runs = json.loads((out / "settings.json").read_text())["runs"]
    assert [(run["method"], run["config"]["merging"]) for run in runs][1] == ("longest", "longest")
    answers = json.loads((out / "results.json").read_text())["runs"]
    assert [(run["method"], run["n"]) for run in answers] == [("none", 1), ("longest", 1)]


def test_a_plug_in_that_cannot_be_loaded(tmp_path: Path) -> None:
    env = plugin(tmp_path, "import nothing_of_that_name")
    found = command(env, "budget", "--shape", "tiny", "--method", "longest", "--keep", 0.5)
    said = found.stderr.splitlines()[-1]
    assert found.returncode == 2 and "Traceback" not in found.stderr, found.stderr
    assert said.startswith("duet: the method plug-in 'longest' (longest_method) cannot be loaded (No module named")
    good = command(env, "budget", "--shape", "tiny", "--method", "duet", "--keep", 0.5)
    assert good.returncode == 0, good.stderr  # nobody asked for it
