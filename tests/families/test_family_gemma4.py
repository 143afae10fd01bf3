"""Gemma 4 beside docs/method.md: padded images, keys that later layers borrow, and a model without an encoder."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import towers
import transformers
import zoo
import zoo_gemma4
from exactness import close, generate, kept
from matrix import VIDEO_ROWS, apply
from oracle import masked_stock
from transformers import DynamicCache

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.engine.trace import _images
from duet_vlm.families import facts_of, family_of
from duet_vlm.families.image_shape import ImageShape
from duet_vlm.measuring.costs import cost_report
from duet_vlm.measuring.settings import shortened

SHARED = "gemma4_shared"
LATE = [Drop(2, 0.5), Drop(4, 0.25)]


def pixels(spread: int = 1) -> dict[str, torch.Tensor]:
    """Images of all sizes, padded to one length."""
    generator = torch.Generator().manual_seed(5)
    made = [zoo_gemma4.patches(generator, 1, *grid, spread) for grid in zoo_gemma4.GRIDS]
    return {"pixel_values": torch.cat([p for p, _ in made]), "image_position_ids": torch.cat([at for _, at in made])}


def squares(x: torch.Tensor, rows: int, columns: int, side: int) -> torch.Tensor:
    """(rows * columns * side**2, C) of patches row by row -> the mean of every square of them."""
    width = columns * side
    return torch.stack(
        [
            x[[(r * side + i) * width + c * side + j for i in range(side) for j in range(side)]].mean(0)
            for r in range(rows)
            for c in range(columns)
        ]
    )


@torch.no_grad()
def test_scores_are_attention_received_within_an_image_without_its_padding() -> None:
    model, given, side = zoo.build("gemma4"), pixels(), zoo_gemma4.SIDE
    core = model.model
    attention = core.vision_tower.encoder.layers[-1].self_attn
    normed: list[torch.Tensor] = []
    hook = attention.k_norm.register_forward_hook(lambda m, a, out: normed.append(out))
    maps, _, stock = towers.look(model, attention, attention.k_proj, lambda: core.get_image_features(**given))
    hook.remove()
    with duet_vlm.apply(model, DuetConfig(dominant=5, contextual=2, cluster_width=2)):
        output = core.get_image_features(**given)
    images = [image for merge in output.duet.decisions for image in _images(merge)]
    assert len(images) == len(zoo_gemma4.GRIDS)
    for number, (rows, columns) in enumerate(zoo_gemma4.GRIDS):
        patches = rows * columns * side**2
        received = maps[number, :, :patches, :patches].mean(0).sum(0)
        key = normed[0][number, :patches]  # (patches, H, 8): 4 turned by x, 4 by y
        cos, sin = core.vision_tower.encoder.rotary_emb(key, given["image_position_ids"][number : number + 1, :patches])
        parts = []
        for axis in (slice(0, 4), slice(4, 8)):
            one = key[..., axis]
            turned = torch.cat([-one[..., 2:], one[..., :2]], dim=-1)
            parts.append(one * cos[0, :, None, axis] + turned * sin[0, :, None, axis])
        mean = torch.cat(parts, -1).mean(1)
        scores = squares(received[:, None], rows, columns, side)[:, 0]
        decided = towers.agrees(images[number], scores, squares(mean, rows, columns, side), 5, 2, 2)
        close(output.duet.features[number], towers.in_place(stock.pooler_output[number], decided))


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("drops", [[], [Drop(4, 0.0)]], ids=["stage 1", "all gone"])  # the last places never ask
@torch.no_grad()
def test_the_last_logits_alone_are_those_of_all_places(drops: list[Drop], padding: str, attention: str) -> None:
    """Stock sends the last tokens alone through layers that borrow; a row may have lost some of these."""
    model, batch = zoo.build(SHARED, attention), zoo.inputs(SHARED, VIDEO_ROWS, padding)
    seen: list[int] = []
    model.model.language_model.layers[-1].register_forward_pre_hook(lambda m, a: seen.append(a[0].shape[1]))
    duet_vlm.apply(model, DuetConfig(5, 2, drops=drops))
    everywhere = model(**batch, logits_to_keep=0).logits
    for last in (1, 3, 14, batch["input_ids"].shape[1]):
        seen.clear()
        logits = model(**batch, logits_to_keep=last).logits
        assert logits.shape[1] == last
        real = batch["attention_mask"][:, -last:].bool()
        close(logits[real], everywhere[:, -last:][real])
        assert (seen == [last]) == (padding == "left" and last < 6)  # behind the last image


@torch.no_grad()
def test_a_cache_holds_nothing_of_layers_that_borrow_and_later_text_finds_what_it_needs() -> None:
    model, batch = zoo.build(SHARED), zoo.inputs(SHARED, ((5, "i", 6),))
    handle, more = apply(model, SHARED), torch.tensor([[7, 11, 5, 23]])
    whole = zoo.extended(SHARED, batch, more)
    for cache in (DynamicCache(), DynamicCache(config=model.config.get_text_config())):
        model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
        alive = kept(handle, batch, more=4)
        stored = [getattr(layer, "keys", None) for layer in cache.layers]
        assert [keys is None for keys in stored] == [False] * 6 + [True] * (len(cache.layers) - 6)
        hidden, _ = masked_stock(model, whole, alive, renumber=False)
        for last in (1, 3, 4):
            cache.crop(-4) if cache.get_seq_length() == whole["input_ids"].shape[1] else None
            out = model(
                more, attention_mask=whole["attention_mask"], past_key_values=cache, use_cache=True, logits_to_keep=last
            )
            close(out.logits, model.lm_head(hidden)[:, -last:])


def test_drops_stand_before_keys_are_lent() -> None:
    model, batch = zoo.build(SHARED), zoo.inputs(SHARED, ((5, "i", 6),))
    message = "drop layer 5 is not possible: layers 6 to 7 use the keys and values of layers 4 and 5"
    config = DuetConfig(drops=[Drop(2, 0.5), Drop(5, 0.25)], query="all")
    with pytest.raises(DuetError, match=message):
        duet_vlm.apply(model, config)
    with pytest.raises(DuetError, match=message):
        cost_report(model.config, config, 9, grid=(12, 18))
    assert duet_vlm.handle_of(model) is None
    facts = facts_of(model)
    assert (facts.layers, facts.droppable) == (8, 5)
    for name in ("duet", "pyramiddrop", "fastv", "sparsevlm"):
        found = DuetConfig.preset(name, model=model, keep=0.4)
        assert 0 < max(drop.layer for drop in found.drops) <= 4
        counts = ImageShape.of(model.config, (96, 96)).tokens_per_layer(found, 8)
        assert sum(counts) / 8 == pytest.approx(0.4 * 32 * 32, abs=2)
        with duet_vlm.apply(model, found, tokenizer=tiny.Words()) as handle, torch.no_grad():
            model(**batch)
            assert handle.trace is not None


def test_fewer_layers_still_find_what_they_borrow() -> None:
    config = zoo.build(SHARED).config
    for layers in range(2, 9):
        text = shortened(config, layers).get_text_config()
        assert text.num_hidden_layers == layers and text.num_kv_shared_layers <= layers - 2
        transformers.Gemma4ForCausalLM(text)  # refuses a layer that borrows what nobody lends


@pytest.mark.parametrize("name", ["uniform", "pool", "divprune"])
@torch.no_grad()
def test_without_an_encoder_features_decide(name: str) -> None:
    family = "gemma4_unified"
    model, batch = zoo.build(family), zoo.inputs(family, VIDEO_ROWS)
    with duet_vlm.apply(model, DuetConfig(5, 0, merging=name, drops=LATE), tokenizer=tiny.Words()) as handle:
        out = generate(model, batch)
        new = out.sequences[:, batch["input_ids"].shape[1] : -1]
        alive = kept(handle, batch, more=new.shape[1])
        hidden, _ = masked_stock(model, zoo.extended(family, batch, new), alive, renumber=False)
        close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, -new.shape[1] - 1 :])
        assert {sample.tokens_per_layer[0] for sample in handle.trace.samples} <= {5, 10, 15, 20}
        stock = model.model.get_image_features(**pixels(zoo_gemma4.SIDE))
        for number, (rows, columns) in enumerate(zoo_gemma4.GRIDS):
            left = stock.duet.features[number]
            assert left.shape == (rows * columns, 32) and int(left.any(1).sum()) == 5
            if name != "pool":
                close(left[left.any(1)], stock.pooler_output[number][left.any(1)])


@pytest.mark.parametrize(
    "settings", [dict(), dict(merging="visionzip"), dict(merging="holov"), dict(merging="random")], ids=str
)
def test_without_an_encoder_what_needs_attention_is_refused(settings: dict[str, Any]) -> None:
    model = zoo.build("gemma4_unified")
    with pytest.raises(DuetError, match="needs attention of a vision encoder, and a gemma4_unified has none"):
        duet_vlm.apply(model, DuetConfig(5, 2 if settings.get("merging") != "holov" else 0, **settings))
    assert duet_vlm.handle_of(model) is None


def test_what_cannot_work_is_refused_before_any_work() -> None:
    model = zoo.build("gemma4")
    for family in ("gemma4", "gemma4_unified"):
        with pytest.raises(DuetError, match=f"'renumber' is not possible for {family}"):
            duet_vlm.apply(zoo.build(family), DuetConfig(drops=LATE, positions="renumber", query="last"))
    model.config.text_config.use_bidirectional_attention = "all"
    with pytest.raises(DuetError, match="attends both ways everywhere"):
        duet_vlm.apply(model, DuetConfig(drops=LATE, query="last"))


def test_a_draft_model_that_reads_the_keys_of_the_whole_prompt_is_refused() -> None:
    model, batch = zoo.build("gemma4"), zoo.inputs("gemma4", ((5, "i", 6),))
    text = transformers.Gemma4TextConfig(
        **{**tiny.TEXT, "num_hidden_layers": 2}, head_dim=8, global_head_dim=16, num_kv_shared_layers=2,
        hidden_size_per_layer_input=0, vocab_size_per_layer_input=0,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    draft = transformers.Gemma4AssistantForCausalLM(
        transformers.Gemma4AssistantConfig(text_config=text, backbone_hidden_size=32)
    )
    apply(model, "gemma4")
    with pytest.raises(DuetError, match="drafts from keys and values of the whole prompt"):
        generate(model, batch, assistant_model=draft)


@pytest.mark.parametrize("row", ["gemma4", "gemma4_unified"])
def test_grids_and_budgets(row: str) -> None:
    config = zoo.build(row).config
    family, batch = family_of(config), zoo.inputs(row, ((4, "i", 5),))
    rows, columns = family.token_grid(config, batch)
    assert rows * columns == int((batch["input_ids"] == zoo.IMAGE).sum())
    assert family.grid_of(config, batch) == (1, 3 * rows, 3 * columns)
    video = zoo.inputs(row, ((4, "v", 5),))
    assert family.token_grid(config, video) == (2, 4)
    assert ImageShape.of(config, (12, 18)).visual_tokens == 24
    made = family.pixels(config, torch.ones, grid=(12, 18))
    found = zoo.build(row).model.get_image_features(**made).pooler_output
    assert [len(one) for one in found] == [24]
    with pytest.raises(DuetError, match="is less than one visual token"):
        family.tokens_of_grid(config, (2, 8))
