"""The engine behind PixelPrune: what is left of a picture against masks, uncached and single computations."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate, kept, per_layer, weights
from matrix import rows_of
from oracle import masked_stock
from repeats import kept_of, pictures, repeating, tokens_kept

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.config.registry import STAGE1, at_encoder

FAMILIES = (
    "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "glm_ocr", "paddleocr_vl", "mistral3", "qwen2_vl", "qwen3_vl_moe",
    "qwen3_5_moe", "glm4v_moe", "glm46v", "glm4v_video", "ministral3",
)  # fmt: skip
LATE: dict[str, Any] = dict(drops=[Drop(2, 0.5), Drop(4, 0.25)])
CONFIGS: dict[str, dict[str, Any]] = {
    "alone": {},
    "stage 1": dict(dominant=2, contextual=1, cluster_width=3, proportional=True),
    "both stages": dict(dominant=0.3, contextual=0.1, merging="scope", **LATE),
    "stage 2": dict(query="all", **LATE),
}
family = pytest.mark.parametrize("family", FAMILIES)
config = pytest.mark.parametrize("name", CONFIGS)
attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])


def apply(model: Any, name: str) -> duet_vlm.Duet:
    return duet_vlm.apply(model, DuetConfig(pixelprune=0, **CONFIGS[name]), tokenizer=tiny.Words())


def batch_of(family: str, rows: zoo.Rows, padding: str = "left", first: int = 0) -> dict[str, Any]:
    """Pictures of a row are the same in a batch and alone."""
    singles = [
        repeating(zoo.inputs(family, (row,), padding, first=first + i), seed=first + i) for i, row in enumerate(rows)
    ]
    whole, found = zoo.inputs(family, rows, padding, first=first), {}
    for key, x in whole.items():
        parts = [single[key] for single in singles if key in single]
        found[key] = torch.cat(parts) if key.startswith("pixel_values") else x
    return found


@family
@attention
@config
@torch.no_grad()
def test_prefill_and_decoding_equal_masks(family: str, attention: str, name: str) -> None:
    model, batch = zoo.build(family, attention), batch_of(family, rows_of(family))
    with apply(model, name) as handle:
        out = generate(model, batch, 3)
        length = batch["input_ids"].shape[1]
        new = out.sequences[:, length:-1]
        alive = kept(handle, batch, more=new.shape[1])
        sizes = weights(handle, batch, family, more=new.shape[1])
        hidden, there = masked_stock(model, zoo.extended(family, batch, new), alive, handle.renumbers, sizes)
        assert handle.renumbers is False and handle.trace is not None
        images = handle.trace.images
    close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, length - 1 :])
    seen = tokens_kept(batch)
    places = torch.cat([torch.isin(torch.arange(len(image.scores)), torch.tensor(image.dominant + image.anchors))
                        for image in images])  # fmt: skip
    assert not bool((places & ~seen).any()) and int(there.sum()) < int(batch["attention_mask"].sum())
    if name in ("alone", "stage 2"):
        assert torch.equal(places, seen)
    members = [place for image in images for cluster in image.clusters for place in cluster]
    assert bool(members) == (name == "stage 1")


@family
@pytest.mark.parametrize("name", ["alone", "both stages"])
@pytest.mark.parametrize("padding", ["left", "right"])
@torch.no_grad()
def test_padded_batch_equals_one_by_one(family: str, name: str, padding: str) -> None:
    model, rows = zoo.build(family), rows_of(family)
    batch = batch_of(family, rows, padding)
    with apply(model, name) as handle:
        together = model(**batch, use_cache=False).logits
        counts = per_layer(handle)
        for row in range(len(rows)):
            single = batch_of(family, rows[row : row + 1], first=row)
            alone = model(**single, use_cache=False).logits[0]
            close(together[row, batch["attention_mask"][row].bool()], alone)
            if counts[row][0]:  # a row of text has no trace of its own
                assert per_layer(handle)[0] == counts[row]
    assert 0 < counts[0][0] < int(zoo.visual(batch)[0].sum())


@family
@torch.no_grad()
def test_a_picture_without_repeats_is_stocks_to_the_bit(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    stock, answers = model(**batch).logits, generate(model, batch, 3)
    with apply(model, "alone") as handle:
        assert torch.equal(model(**batch).logits, stock)
        again = generate(model, batch, 3)
        assert handle.trace is not None and handle.trace.samples[0].drops == []
    assert torch.equal(again.sequences, answers.sequences)
    assert all(torch.equal(a, b) for a, b in zip(again.logits, answers.logits, strict=True))


@family
@torch.no_grad()
def test_a_later_turn_sees_what_was_kept(family: str) -> None:
    """Text behind a prompt, in one call and token by token, against the whole without a cache."""
    model, batch = zoo.build(family), batch_of(family, rows_of(family)[:1])
    more = torch.tensor([[7, 11, 5, 23]])
    full = zoo.extended(family, batch, more)
    with apply(model, "both stages") as handle:
        cache = model(**batch, use_cache=True).past_key_values
        alive = kept(handle, batch, more=4)
        given: dict[str, Any] = dict(attention_mask=full["attention_mask"], past_key_values=cache, use_cache=True)
        if zoo.FAMILIES[family].mrope:
            given["position_ids"] = zoo.rope_index(model, full)[..., -4:]
        elif "position_ids" in full:
            given["position_ids"] = full["position_ids"][:, -4:]
        found = model(input_ids=more, **given).logits
        hidden, _ = masked_stock(model, full, alive, handle.renumbers)
    close(found, model.lm_head(hidden)[:, -4:])


def test_gradients_reach_the_patches_that_entered_alone() -> None:
    model, batch = zoo.build("qwen2_5_vl"), batch_of("qwen2_5_vl", ((5, "i", 4),))
    batch["pixel_values"].requires_grad_()
    with apply(model, "alone"):
        model(**batch).logits.sum().backward()
    grads = pictures({**batch, "pixel_values": batch["pixel_values"].grad})[0].abs().amax((2, 3)) > 0
    assert torch.equal(grads.flatten(), tokens_kept({**batch, "pixel_values": batch["pixel_values"].detach()}))


def test_a_config_is_saved_and_read_with_the_model() -> None:
    model = zoo.build("qwen2_5_vl")
    with apply(model, "both stages") as handle:
        saved = model.config.to_dict()["duet"]
        assert saved["version"] == 3 and DuetConfig.from_dict(saved) == handle.config
        handle.use(DuetConfig(dominant=4))
        assert "pixelprune" not in model.config.duet and model.config.duet["version"] == 1


@pytest.mark.parametrize("merging", at_encoder())
@pytest.mark.parametrize("share", [0.6, 1.1])
@torch.no_grad()
def test_every_stage_1_chooses_of_what_is_left_or_is_refused(merging: str, share: float) -> None:
    """As many as its fractions of the whole image say, or as there are; with a share above 1 that is one."""
    settings: dict[str, Any] = dict(pixelprune=0, dominant=0.3, contextual=0.15, merging=merging)
    if "grid" in STAGE1[merging].needs or STAGE1[merging].whole_videos:
        with pytest.raises(DuetError, match=f"merging '{merging}' needs whole images, and pixelprune leaves holes"):
            DuetConfig(**settings)
        return
    model, batch = zoo.build("qwen2_5_vl"), repeating(zoo.inputs("qwen2_5_vl", ((2, "i", 3, "i", 6),)), share)
    with duet_vlm.apply(model, DuetConfig(**settings)) as handle:
        model(**batch)
        assert handle.trace is not None
        images = handle.trace.images
    for image, picture in zip(images, pictures(batch), strict=True):
        kept_here = kept_of(picture).flatten().nonzero()[:, 0].tolist()
        wanted = int(0.3 * len(image.scores)) + int(0.15 * len(image.scores))
        left = image.dominant + image.anchors
        assert len(set(left)) == len(left) == min(wanted, len(kept_here)) and set(left) <= set(kept_here)
        assert {place for cluster in image.clusters for place in cluster} <= set(kept_here) - set(left)
