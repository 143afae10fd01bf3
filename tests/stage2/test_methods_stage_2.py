"""Every way to rank against a naive loop: on random tensors, and in a model against its bare weights."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import stage_2
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.config import methods
from duet_vlm.config.settings import RANKING
from duet_vlm.stage2 import ranking
from duet_vlm.tensors.streamed import Places, Softmax

many = settings(max_examples=40, deadline=None)


def test_names_agree() -> None:
    assert tuple(ranking.RANKINGS) == RANKING
    used = {schedule.settings.get("ranking", "attention") for schedule in methods.STAGE_2.values()}
    assert used == set(RANKING)


def entrance(data: st.DataObject) -> tuple[ranking.Entrance, list[list[int]], Tensor]:
    """Two rows of n tokens, the last ones text that may ask; also who asks, and all queries (B, H, n, d)."""
    n, rows = data.draw(st.integers(4, 16), "n"), 2
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6), "seed"))
    query, key = (torch.randn(rows, heads, n, 6, generator=generator) for heads in (4, 2))
    average = torch.randn(rows, 2, n, 6, generator=generator)
    hidden = torch.randn(rows, n, 5, generator=generator)
    visual = torch.arange(n).expand(rows, -1) < n - 3
    asked = [[n - 3, n - 2, n - 1], sorted({n - 3 + data.draw(st.integers(0, 2)), n - 1})]
    places = torch.tensor([a + [-1] * (3 - len(a)) for a in asked])
    at = places.clamp(min=0)
    packed = torch.stack([query[b][:, at[b]] for b in range(rows)])
    questions = torch.stack([hidden[b, at[b]] for b in range(rows)])
    stand = Places(places, torch.arange(n).expand(rows, -1))
    return (
        ranking.Entrance(packed, key, stand, Softmax(6**-0.5), hidden, questions, visual, average),
        asked,
        query,
    )


def raters(hidden: Tensor, visual: list[int], asked: list[int]) -> list[int]:
    """SparseVLM's choice: text tokens to which the visual ones point at least as much as to the mean one."""
    pointing = torch.stack([(hidden[asked] @ hidden[v]).softmax(0) for v in visual]).mean(0).tolist()
    return [i for i, p in zip(asked, pointing, strict=True) if p >= (sum(pointing) / len(pointing)) * (1 - 1e-5)]


@many
@given(st.data())
def test_scores_equal_the_naive_loop(data: st.DataObject) -> None:
    seen, asked, query = entrance(data)
    debias = data.draw(st.booleans(), "debias")
    average, seen.average = seen.average, seen.average if debias else None
    sizes = 1 + torch.arange(seen.visual.numel()).view(seen.visual.shape) % data.draw(st.integers(2, 9), "sizes")
    sizes = sizes if data.draw(st.booleans(), "proportional") else None
    seen.log_sizes = None if sizes is None else sizes.log()
    assert average is not None
    n = seen.visual.shape[1]
    for name in ("attention", "sparsevlm"):
        scores = ranking.RANKINGS[name](seen)
        for b in range(2):
            asking = asked[b]
            if name == "sparsevlm":
                asking = raters(seen.hidden[b], seen.visual[b].nonzero()[:, 0].tolist(), asking)
            expected = stage_2(query[b], seen.key[b], asking, [True] * n, None if sizes is None else sizes[b].tolist())
            if debias:
                mixed = torch.where(seen.visual[b, :, None], average[b], seen.key[b])
                place = stage_2(query[b], mixed, asking, [True] * n)
                expected = [e / p for e, p in zip(expected[: n - 3], place, strict=False)]
            torch.testing.assert_close(scores[b, : len(expected)], torch.tensor(expected), atol=1e-5, rtol=1e-4)
    norms = [[-sum(float(k.norm()) for k in seen.key[b, :, i]) / 2 for i in range(n)] for b in range(2)]
    torch.testing.assert_close(ranking.keynorm(seen), torch.tensor(norms))


@pytest.mark.engine
@pytest.mark.parametrize("name", ["attention", "sparsevlm", "keynorm", "debias"])
@pytest.mark.parametrize("family", ["llava", "llava_mistral"])
def test_a_model_ranks_as_its_weights_say(family: str, name: str) -> None:
    model, batch = tiny.build(family), tiny.inputs(family, ((5, 9),))
    text, seen = model.model.language_model, {}
    layer = text.layers[2]
    handle = layer.register_forward_pre_hook(lambda m, a, k: seen.update(k, hidden=a[0]), with_kwargs=True)
    with torch.no_grad():
        model(**batch)
        handle.remove()
        normed = layer.input_layernorm(seen["hidden"])

        def heads(projection: Any, x: Tensor) -> Tensor:
            return projection(x).unflatten(-1, (-1, 8)).transpose(1, 2)

        def rotated(x: Tensor) -> Tensor:
            return apply_rotary_pos_emb(x, x, *seen["position_embeddings"])[0]

        visual = list(range(5, 5 + tiny.PATCHES))
        query, key = rotated(heads(layer.self_attn.q_proj, normed)), rotated(heads(layer.self_attn.k_proj, normed))
        mean = normed[:, visual].mean(1, keepdim=True).expand_as(normed)
        average = key.clone()
        average[:, :, visual] = rotated(heads(layer.self_attn.k_proj, mean))[:, :, visual]
        kind = "attention" if name == "debias" else name
        config = DuetConfig(drops=[Drop(2, 0.4)], query="all", ranking=kind, debias=name == "debias")
        with duet_vlm.apply(model, config) as duet:
            model(**batch)
    length = seen["hidden"].shape[1]
    asked, valid = list(range(5 + tiny.PATCHES, length)), [True] * length
    if name == "keynorm":
        expected = (-key[0].norm(dim=-1).mean(0)).tolist()
    else:
        if name == "sparsevlm":
            asked = raters(seen["hidden"][0], visual, asked)
        expected = stage_2(query[0], key[0], asked, valid)
    if name == "debias":
        place = stage_2(query[0], average[0], asked, valid)
        expected = [e / max(p, 1e-30) for e, p in zip(expected, place, strict=True)]
    assert duet.trace is not None
    drop = duet.trace.samples[0].drops[0]
    torch.testing.assert_close(
        torch.tensor(drop.scores), torch.tensor([expected[i] for i in drop.ranked]), atol=1e-5, rtol=1e-3
    )
    assert drop.kept == sorted(sorted(visual, key=lambda i: -expected[i])[: int(0.4 * tiny.PATCHES)])


@pytest.mark.engine
def test_place_alone_scores_nothing() -> None:
    """Where every visual token is the same, their places decide by attention, and nothing does when debiased."""
    model, batch = tiny.build(), tiny.inputs()

    def same(module: Any, args: Any, output: Tensor) -> Tensor:
        return output.mean(1, keepdim=True).expand_as(output)

    model.model.multi_modal_projector.register_forward_hook(same)
    spread = {}
    for debias in (False, True):
        config = DuetConfig(drops=[Drop(1, 0.5, rank_at=0)], query="all", debias=debias)
        with duet_vlm.apply(model, config) as handle, torch.no_grad():
            model(**batch)
            assert handle.trace is not None
            scores = torch.tensor(handle.trace.samples[0].drops[0].scores)
            spread[debias] = float(scores.std() / scores.mean())
    assert spread[True] < 1e-5 < 0.05 < spread[False]


@pytest.mark.engine
def test_random_ranking_is_seeded_and_belongs_to_the_row() -> None:
    model, batch = tiny.build(), tiny.inputs("llava", ((5, 9), (2, 3, 6), (12,)))
    config = DuetConfig(drops=[Drop(1, 0.5), Drop(3, 0.25)], query="last", ranking="random")

    def kept(given: dict[str, Any], seed: int = 3) -> list[list[list[int]]]:
        torch.manual_seed(seed)
        model(**given)
        assert handle.trace is not None
        return [[d.kept for d in sample.drops] for sample in handle.trace.samples]

    with duet_vlm.apply(model, config) as handle, torch.no_grad():
        together = kept(batch)
        assert together == kept(batch) != kept(batch, seed=4)
        for row in range(2):
            pad = int((batch["attention_mask"][row] == 0).sum())
            alone = kept(tiny.single(batch, row))[0]
            assert [[i + pad for i in drop] for drop in alone] == together[row]
    counts = [len(drop) for drop in together[0]]
    assert counts == [18, 9]
