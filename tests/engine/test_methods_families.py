"""Every method on every family: against the masking oracle, padded against singles, nothing to do."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate, kept, weights
from matrix import rows_of
from oracle import masked_stock

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.registry import RANKINGS, STAGE1, at_encoder
from duet_vlm.families import family_of

LATE = [Drop(2, 0.5), Drop(4, 0.25)]
STAGE_1 = {name: dict(merging=name, drops=LATE) for name in at_encoder() if name != "duet"}
STAGE_2 = {name: dict(drops=LATE, ranking=name, query="all") for name in RANKINGS if name != "attention"}
OPTIONS: dict[str, dict[str, Any]] = {
    "duet-plus": dict(drops=LATE, merging="visionzip", diverse=True),
    "options": dict(
        drops=LATE, combine="mean", diverse=True, rest=True, proportional=True, debias=True, ranking="sparsevlm"
    ),
}
ROWS: zoo.Rows = ((5, "i", 9), (2, "i", 3, "i", 6), (12,))

# the last takes few methods, see test_family_gemma4.py
WITHOUT = ("llava", "llava_mistral", "gemma4_unified")

# a crop, a packed image, a square of a projector, a frame, a tile, a hybrid decoder: the others are as one of these
KINDS = ("llava_next", "qwen2_5_vl", "gemma3", "llava_onevision", "internvl", "qwen3_5")

family = pytest.mark.parametrize(
    "family",
    [
        f if f in KINDS else pytest.param(f, marks=pytest.mark.near)
        for f in zoo.SEEING
        if f not in WITHOUT and not zoo.FAMILIES[f].more
    ],
)
method = pytest.mark.parametrize("name", [*STAGE_1, *STAGE_2, *OPTIONS])


def settings(family: str, name: str) -> DuetConfig:
    fields: dict[str, Any] = (STAGE_1 | STAGE_2 | OPTIONS)[name]
    if name in STAGE_2:
        return DuetConfig(**fields)
    dominant, contextual = zoo.FAMILIES[family].stage_1
    return DuetConfig(dominant=dominant, contextual=contextual, **fields)


def build(family: str) -> Any:
    """Norms on keys scale each channel as trained ones do: with ones all keys would be equally long, a tie."""
    model, generator = zoo.build(family), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "k_norm" in name:
                parameter.uniform_(0.2, 2, generator=generator)
    return model


def prompts(family: str, name: str) -> zoo.Rows:
    """Videos, too, for methods that are shown whole ones."""
    return rows_of(family) if name in STAGE1 and STAGE1[name].whole_videos else ROWS


def refused(model: Any, name: str) -> bool:
    """Whether it is a method that is shown whole videos, and a family whose frames come one by one."""
    known = family_of(model.config)
    return name in STAGE1 and STAGE1[name].whole_videos and known.takes_video and not known.whole_videos


@family
@method
def test_method_on_a_family(family: str, name: str) -> None:
    model, rows = build(family), prompts(family, name)
    if refused(model, name):
        with pytest.raises(DuetError, match="come one by one"):
            duet_vlm.apply(model, settings(family, name), tokenizer=tiny.Words())
        return
    batch = zoo.inputs(family, rows)
    torch.manual_seed(5)
    with duet_vlm.apply(model, settings(family, name), tokenizer=tiny.Words()) as handle:
        out = generate(model, batch, 4)
        length = batch["input_ids"].shape[1]
        new = out.sequences[:, length:-1]
        alive = kept(handle, batch, more=new.shape[1])
        assert {2, 4} <= set(alive)
        sizes = weights(handle, batch, family, new.shape[1])
        hidden, there = masked_stock(model, zoo.extended(family, batch, new), alive, handle.renumbers, sizes)
        together = torch.stack(out.logits, 1)
        close(together, model.lm_head(hidden)[:, length - 1 :].detach())
        assert int(there.sum()) < int(batch["attention_mask"].sum()) + new.numel()
        for row, prompt in enumerate(rows):
            single = zoo.inputs(family, (prompt,), first=row)
            close(together[row], torch.stack(generate(model, single, 4).logits, 1)[0])


@family
@method
def test_nothing_to_do_is_bit_identical(family: str, name: str) -> None:
    model, config, rows = build(family), settings(family, name), prompts(family, name)
    if refused(model, name):
        pytest.skip("refused, as the test above says")
    text, batch = zoo.inputs(family, ((11,), (8,))), zoo.inputs(family, rows)
    with torch.no_grad():
        stock, stock_text = model(**batch).logits, model(**text).logits
        with duet_vlm.apply(model, config, tokenizer=tiny.Words()):
            assert torch.equal(model(**text).logits, stock_text)
            assert not torch.equal(model(**batch).logits, stock)
        nothing = DuetConfig(drops=[Drop(2, 1.0)], ranking=config.ranking, debias=config.debias, query=config.query)
        with duet_vlm.apply(model, nothing, tokenizer=tiny.Words()):
            assert torch.equal(model(**batch).logits, stock)
        assert torch.equal(model(**batch).logits, stock)
