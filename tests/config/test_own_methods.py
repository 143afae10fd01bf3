"""Methods that a user brings as functions: sets and scores in stage 2, what they may return, what is saved."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
import tiny
import torch
from hostile import one_sentence
from oracle import masked_prefill, stage_2_keep
from own_methods import longest, spread
from torch import Tensor

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.budget import tokens_per_layer

pytestmark = pytest.mark.usefixtures("own_methods")


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
