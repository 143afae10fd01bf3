"""The engine's matrix for every method: nothing to do, cached = uncached, padded batch = singles, seeded."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from exactness import close, generate, kept
from oracle import masked_prefill, token_sizes

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.config.registry import RANKINGS, STAGE1, at_encoder
from duet_vlm.families import audience
from duet_vlm.stage1 import Encoded

LATE = [Drop(2, 0.5), Drop(4, 0.25)]
CONFIGS: dict[str, dict[str, Any]] = {
    **{
        f"{name}+duet": dict(dominant=11, contextual=4, merging=name, drops=LATE)
        for name in at_encoder()
        if name != "duet"
    },
    **{f"{name} alone": dict(drops=LATE, ranking=name, query="all") for name in RANKINGS if name != "attention"},
    "downsample+fastv": dict(downsample=(3, 5), drops=[Drop(2, 0.5, rank_at=1)], query="last"),
    "random+random": dict(dominant=15, merging="random", drops=LATE, query="last", ranking="random"),
    "every option": dict(
        dominant=11,
        contextual=4,
        drops=LATE,
        combine="mean",
        diverse=True,
        rest=True,
        proportional=True,
        debias=True,
        ranking="sparsevlm",
    ),
}
FAMILIES = ("llava", "llava_next")

family = pytest.mark.parametrize("family", FAMILIES)
config = pytest.mark.parametrize("name", CONFIGS)


@family
@config
def test_method_in_the_engine(family: str, name: str) -> None:
    """Prefill and cached decoding against the masking oracle, a padded batch against its rows one by one."""
    model, batch = tiny.build(family), tiny.inputs(family, tiny.PADDED)
    torch.manual_seed(5)
    with duet_vlm.apply(model, DuetConfig(**CONFIGS[name]), tokenizer=tiny.Words()) as handle, torch.no_grad():
        out = generate(model, batch, 4)
        length = batch["input_ids"].shape[1]
        new = out.sequences[:, length:-1]
        full = tiny.extended(batch, new)
        full["position_ids"] = (full["attention_mask"].cumsum(1) - 1).clamp(min=0)
        alive = kept(handle, batch, more=new.shape[1])
        assert {d.layer for d in CONFIGS[name]["drops"]} <= set(alive)
        sizes = token_sizes(handle.trace, batch, family, new.shape[1]) if handle.config.proportional else None
        hidden, there = masked_prefill(model, full, alive, True, sizes)
        together = torch.stack(out.logits, 1)
        close(together, model.lm_head(hidden)[:, length - 1 :])
        for row in range(3):
            close(together[row], torch.stack(generate(model, tiny.single(batch, row), 4).logits, 1)[0])
        assert int(there.sum()) < int(batch["attention_mask"].sum())


@family
@config
def test_nothing_to_do_is_bit_identical(family: str, name: str) -> None:
    model, text, batch = tiny.build(family), tiny.inputs(family, ((11,), (8,))), tiny.inputs(family)
    settings = CONFIGS[name]
    with torch.no_grad():
        stock, stock_text = model(**batch).logits, model(**text).logits
        with duet_vlm.apply(model, DuetConfig(**settings), tokenizer=tiny.Words()):
            assert torch.equal(model(**text).logits, stock_text)
            assert not torch.equal(model(**batch).logits, stock)
        options = {k: v for k, v in settings.items() if k in ("ranking", "debias", "query")}
        with duet_vlm.apply(model, DuetConfig(drops=[Drop(2, 1.0)], **options), tokenizer=tiny.Words()):
            assert torch.equal(model(**batch).logits, stock)
        assert torch.equal(model(**batch).logits, stock)


@pytest.mark.parametrize("name", at_encoder())
def test_all_tokens_retained_are_all_tokens(name: str) -> None:
    x = torch.randn(2, 24, 6)
    found = STAGE1[name].load()(Encoded(torch.rand(2, 24), x, x, (4, 6)), 24, 0, 4)
    assert torch.equal(found.retained(x), x)


def test_a_smaller_image_is_what_the_encoder_sees() -> None:
    """The tokens of the shrunk image by stock calls, spread over the places that they cover, zeros elsewhere."""
    model, batch = tiny.build(), tiny.inputs()
    core, pixels = model.model, batch["pixel_values"]
    small = torch.nn.functional.interpolate(pixels, (8, 12), mode="bicubic", antialias=True)
    with torch.no_grad():
        tower = core.vision_tower(small, interpolate_pos_encoding=True, output_hidden_states=True)
        expected = core.multi_modal_projector(tower.hidden_states[-2][:, 1:])[0]
        stock = core.get_image_features(pixels, return_dict=True).pooler_output[0]
        with duet_vlm.apply(model, DuetConfig(downsample=(2, 3))):
            with audience.for_engine():
                features = core.get_image_features(pixels, return_dict=True).duet.features[0]
            assert torch.equal(core.get_image_features(pixels, return_dict=True).pooler_output[0], stock)
    assert expected.shape == (6, features.shape[1])
    # rows 1 and 4 of 6, columns 1, 3 and 5
    places = [1 * 6 + 1, 1 * 6 + 3, 1 * 6 + 5, 4 * 6 + 1, 4 * 6 + 3, 4 * 6 + 5]
    assert torch.equal(features[places], expected)
    gone = [i for i in range(36) if i not in places]
    assert not features[gone].any()


def test_an_unchanged_size_changes_nothing() -> None:
    model, batch = tiny.build(), tiny.inputs()
    with torch.no_grad():
        stock = model(**batch).logits
        with duet_vlm.apply(model, DuetConfig(downsample=(6, 6))):
            close(model(**batch).logits, stock)


@pytest.mark.parametrize(
    ("family", "message"),
    [("llava", r"downsample \(7, 2\) is more than the image's 6 rows and 6 columns"), ("siglip", "CLS token")],
)
def test_a_smaller_image_that_cannot_be_is_refused(family: str, message: str) -> None:
    model = tiny.build()
    if family == "siglip":
        model.config.vision_config.model_type = "siglip_vision_model"
    with pytest.raises(ValueError, match=message) as error:
        duet_vlm.apply(model, DuetConfig(downsample=(7, 2)))
    assert str(error.value).endswith(".") and len(str(error.value)) < 260
