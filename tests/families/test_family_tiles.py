"""Families that see tiles beside docs/method.md: scores, keys and order by hand, merged in place."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
import towers
import zoo
import zoo_fixed

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.engine.trace import _images
from duet_vlm.families import family_of

STAGE_1 = DuetConfig(dominant=5, contextual=3, cluster_width=3)
STAGES = ("internvl", "gemma3", "smolvlm", "idefics3", "aya_vision", "cohere2_vision", "ovis2")


@pytest.mark.parametrize("family", STAGES)
def test_which_patches_make_a_token(family: str) -> None:
    """Each patch is a unit vector; the 16 tokens are squares of 2 x 2 patches in raster order."""
    model = zoo.build(family)
    of_family = family_of(model.config)
    stage = of_family.stage1(model.model, STAGE_1, of_family)
    patches = torch.eye(64)
    torch.testing.assert_close(stage.pool(patches[None])[0], towers.squares(patches, 8, 2))


def hold(model: Any, pixels: torch.Tensor, attention: Any, keys: Any, score: Any) -> None:
    core, tower = model.model, getattr(model.model, "vision_tower", None) or model.model.vision_model
    maps, found, _ = towers.look(core, attention, keys, lambda: tower(pixels))
    stock = core.get_image_features(pixels).pooler_output
    with duet_vlm.apply(model, STAGE_1):
        output = core.get_image_features(pixels)
    scores = score(maps)
    found = found[:, -scores.shape[1] :]
    assert len(output.duet.decisions) == len(pixels)
    for i, merge in enumerate(output.duet.decisions):
        means = towers.squares(scores[i][:, None], 8, 2)[:, 0], towers.squares(found[i], 8, 2)
        decided = towers.agrees(_images(merge)[0], *means, 5, 3, 3)
        torch.testing.assert_close(output.duet.features[i], towers.in_place(stock[i], decided))


@pytest.mark.parametrize("layer", [-1, -2, 1])
@pytest.mark.parametrize("normed", [False, True])
@torch.no_grad()
def test_internvl_scores_are_the_cls_row_of_the_feature_layer(layer: int, normed: bool) -> None:
    torch.manual_seed(3)
    model = zoo_fixed.internvl(normed).eval()
    tiny.randomize(model)
    model.config.vision_feature_layer = layer
    attention = model.model.vision_tower.encoder.layer[layer if layer < 0 else layer - 1].attention
    hold(model, torch.randn(3, 3, 32, 32), attention, attention.k_norm, lambda maps: maps[:, :, 0, 1:].sum(1))


@pytest.mark.parametrize("family", ["gemma3", "aya_vision", "cohere2_vision"])
@torch.no_grad()
def test_scores_are_attention_received(family: str) -> None:
    model = zoo.build(family)
    attention = model.model.vision_tower.encoder.layers[-1].self_attn
    hold(model, torch.randn(2, 3, 32, 32), attention, attention.k_proj, towers.received)


@pytest.mark.parametrize("family", ["smolvlm", "idefics3"])
@torch.no_grad()
def test_smolvlm_padding_neither_gives_nor_receives(family: str) -> None:
    """Two samples as the processor stacks them: two tiles and one, the last with a padded right side."""
    model = zoo.build(family)
    core = model.model
    pixels, mask = torch.randn(2, 2, 3, 32, 32), torch.ones(2, 2, 32, 32, dtype=torch.bool)
    pixels[1, 1], mask[1, 1] = 0, False
    mask[1, 0, :, 20:] = False
    real = [torch.ones(64, dtype=torch.bool)] * 2 + [mask[1, 0, ::4, ::4].flatten()]
    given = dict(pixel_values=pixels, pixel_attention_mask=mask)
    attention = core.vision_model.encoder.layers[-1].self_attn
    stock = core.get_image_features(**given)
    maps, keys, _ = towers.look(core, attention, attention.k_proj, lambda: core.get_image_features(**given))
    with duet_vlm.apply(model, DuetConfig(dominant=5, contextual=3, cluster_width=2)):
        output = core.get_image_features(**given)
    assert [len(x) for x in output.duet.features] == [32, 16]
    before, after = torch.cat(list(stock.pooler_output)), torch.cat(list(output.duet.features))
    for i, merge in enumerate(output.duet.decisions):
        scores = (maps[i].mean(0) * real[i][:, None] * real[i]).sum(0)
        means = [towers.squares(x, 8, 2) for x in (scores[:, None], keys[i] * real[i][:, None])]
        image, part = _images(merge)[0], slice(16 * i, 16 * i + 16)
        decided = towers.agrees(image, means[0][:, 0], means[1], 5, 3, 2)
        torch.testing.assert_close(after[part], towers.in_place(before[part], decided))
        if i == 2:  # the last three columns of patches are padding, so the last column of tokens is
            assert not {3, 7, 11, 15} & set(image.dominant)


@torch.no_grad()
def test_ovis2_scores_are_attention_received() -> None:
    model, pixels = zoo.build("ovis2"), torch.randn(2, 3, 32, 32)
    core = model.model
    attention = core.vision_tower.transformer.encoder.layers[-1].attention
    maps, keys, stock = towers.look(model, attention, attention.k_proj, lambda: core.get_image_features(pixels))
    with duet_vlm.apply(model, STAGE_1):
        output = core.get_image_features(pixels)
    for i, merge in enumerate(output.duet.decisions):
        scores = towers.squares(towers.received(maps)[i][:, None], 8, 2)[:, 0]
        decided = towers.agrees(_images(merge)[0], scores, towers.squares(keys[i], 8, 2), 5, 3, 3)
        torch.testing.assert_close(output.duet.features[i], towers.in_place(stock.pooler_output[i], decided))


@pytest.mark.parametrize(("family", "spans"), [("internvl", 1), ("smolvlm", 2), ("aya_vision", 2), ("ovis2", 2)])
def test_spans_of_stage_2(family: str, spans: int) -> None:
    """InternVL's tiles follow each other, the others' have text between them; an image in the next turn is another."""
    model, pixels = zoo.build(family), torch.randn(2, 3, 32, 32)
    between = [zoo_fixed.BETWEEN] if spans == 2 else []
    ids = [5, *[zoo.IMAGE] * 16, *between, *[zoo.IMAGE] * 16, 7, 9]
    batch = {"input_ids": torch.tensor([ids]), "pixel_values": pixels[None] if family == "smolvlm" else pixels}
    with duet_vlm.apply(model, DuetConfig(drops=[Drop(2, 0.4)], query="last")) as handle, torch.no_grad():
        model(**batch)
        (drop,) = handle.trace.samples[0].drops
    scores = dict(zip(drop.ranked, drop.scores, strict=True))
    runs = [range(1, 33)] if spans == 1 else [range(1, 17), range(18, 34)]
    best = [sorted(run, key=lambda i: -scores[i])[: int(0.4 * len(run))] for run in runs]
    assert drop.kept == sorted(i for run in best for i in run)


@pytest.mark.parametrize("family", ["gemma3", "aya_vision"])
def test_decoding_goes_past_the_window(family: str) -> None:
    from exactness import close, generate, kept
    from oracle import masked_stock

    model, batch = zoo.build(family), zoo.inputs(family, ((4, "i", 5),))
    with duet_vlm.apply(model, DuetConfig(5, 3, drops=[Drop(2, 0.5)], query="all")) as handle:
        out = generate(model, batch, 30)  # the window is 24
        length = batch["input_ids"].shape[1]
        new = out.sequences[:, length:-1]
        longer, alive = zoo.extended(family, batch, new), kept(handle, batch, 29)
        hidden, _ = masked_stock(model, longer, alive, handle.renumbers)
    close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach())


@pytest.mark.parametrize("family", STAGES)
def test_a_chunk_that_ends_inside_a_tile_is_refused(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, ((4, "i", 5),))
    with duet_vlm.apply(model, STAGE_1), pytest.raises(ValueError, match="leave out prefill_chunk_size"):
        model.generate(**batch, max_new_tokens=2, prefill_chunk_size=8)


@pytest.mark.parametrize("family", STAGES)
def test_what_a_tile_cannot_give_is_refused_and_the_model_is_as_it_was(family: str) -> None:
    model = zoo.build(family)
    before = copy.deepcopy(model.config.to_dict())
    with pytest.raises(ValueError, match=r"dominant 15 . contextual 2 = 17 is more than the 16 visual tokens"):
        duet_vlm.apply(model, DuetConfig(dominant=15, contextual=2))
    with pytest.raises(ValueError, match="grid= out"):
        family_of(model.config).tokens_of_grid(model.config, (8, 8))
    if family == "gemma3":
        with pytest.raises(ValueError, match="positions 'renumber' is not possible for gemma3"):
            duet_vlm.apply(model, DuetConfig(drops=[Drop(2, 0.5)], query="all", positions="renumber"))
    assert model.config.to_dict() == before
    if family == "internvl":
        for layer in ([-1, -2], 0):
            model.config.vision_feature_layer = layer
            with pytest.raises(ValueError, match="stage 1 needs one vision_feature_layer"):
                duet_vlm.apply(model, STAGE_1)
        duet_vlm.apply(model, DuetConfig(drops=[Drop(2, 0.5)], query="all")).remove()
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules() if "Vision" in type(m).__name__)
