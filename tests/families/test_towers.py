"""LLaVA with whatever tower its config names: both stages where the first token is CLS, stage 2 alone elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import towers
import transformers
from exactness import close, generate, kept
from oracle import masked_stock

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.families import facts_of

SIZE: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
SIGLIP = transformers.SiglipVisionConfig(
    **SIZE, intermediate_size=64, image_size=24, patch_size=4, vision_use_head=False
)
DINOV2 = transformers.Dinov2Config(**SIZE, mlp_ratio=2, image_size=24, patch_size=4)
INTERN = transformers.InternVLVisionConfig(
    **SIZE, intermediate_size=64, image_size=[24, 24], patch_size=[4, 4], layer_scale_init_value=1.0
)
PIXTRAL = transformers.PixtralVisionConfig(**SIZE, intermediate_size=64, image_size=64, patch_size=4)
# tower, strategy, feature layer, visual tokens of an image of 24 x 24
TOWERS: dict[str, tuple[Any, str, int, int]] = {
    "clip, full": (transformers.CLIPVisionConfig(**tiny.VISION), "full", -2, 37),
    "siglip, full": (SIGLIP, "full", -1, 36),
    "siglip, default": (SIGLIP, "default", -2, 35),
    "dinov2, default": (DINOV2, "default", -2, 36),
    "dinov2, full": (DINOV2, "full", -1, 37),
    "internvit, default": (INTERN, "default", -2, 36),
    "pixtral, full": (PIXTRAL, "full", -1, 36),
}
STAGE_2 = dict(drops=[Drop(2, 0.5), Drop(4, 0.25)])
BOTH = dict(dominant=13, contextual=4, cluster_width=3, **STAGE_2)


def build(tower: str) -> Any:
    torch.manual_seed(0)
    vision, strategy, layer, tokens = TOWERS[tower]
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=transformers.LlamaConfig(**tiny.TEXT), image_token_id=tiny.IMAGE,
        image_seq_length=tokens, vision_feature_layer=layer, vision_feature_select_strategy=strategy,
    )  # fmt: skip
    model = transformers.LlavaForConditionalGeneration(config).eval()
    tiny.randomize(model, torch.Generator().manual_seed(0))
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = tiny.PAD, None
    return model


def inputs(tower: str) -> dict[str, Any]:
    """Two rows, padded on the left; Pixtral's images have rows of six patches with a row end of text behind each."""
    generator = torch.Generator().manual_seed(1)
    image = [tiny.IMAGE] * TOWERS[tower][3]
    if tower.startswith("pixtral"):
        image = [token for _ in range(6) for token in (*[tiny.IMAGE] * 6, 90)]
    rows = [torch.tensor([5, *image, *torch.randint(3, 90, (n,), generator=generator).tolist()]) for n in (9, 4)]
    batch: dict[str, Any] = tiny.stack(rows, "left")
    batch["pixel_values"] = torch.randn(2, 3, 24, 24, generator=generator)
    if tower.startswith("pixtral"):
        batch["image_sizes"] = torch.tensor([[24, 24]] * 2)
    return batch


def settings(tower: str) -> list[dict[str, Any]]:
    return [STAGE_2, BOTH] if tower in ("dinov2, default", "internvit, default", "pixtral, full") else [STAGE_2]


@pytest.mark.parametrize("tower", TOWERS)
@torch.no_grad()
def test_every_stage_that_a_tower_allows_equals_the_oracle(tower: str) -> None:
    model, batch = build(tower), inputs(tower)
    for chosen in settings(tower):
        with duet_vlm.apply(model, DuetConfig(**chosen), tokenizer=tiny.Words()) as handle:
            out = model(**batch, logits_to_keep=0)
            alive = kept(handle, batch)
            hidden, there = masked_stock(model, batch, alive, renumber=True)
            close(out.logits[there], model.lm_head(hidden)[there])
            cached, plain = (torch.stack(generate(model, batch, 5, use_cache=on).logits) for on in (True, False))
            close(cached, plain)
            entering = 17 if chosen is BOTH else TOWERS[tower][3]
            assert {s.tokens_per_layer[0] for s in handle.trace.samples} == {entering}
            assert {s.tokens_per_layer[4] for s in handle.trace.samples} == {entering // 4}


@pytest.mark.parametrize("tower", ["dinov2, default", "internvit, default"])
@torch.no_grad()
def test_scores_are_the_cls_row_of_the_feature_layer(tower: str) -> None:
    model, batch = build(tower), inputs(tower)
    with duet_vlm.apply(model, DuetConfig(**BOTH), tokenizer=tiny.Words()) as handle:
        model(**batch, logits_to_keep=1)
        images = handle.trace.images
    vision = model.model.vision_tower
    layer = vision.encoder.layer[-2]
    maps, keys, _ = towers.look(vision, layer.attention, layer.attention.k_proj, lambda: vision(batch["pixel_values"]))
    for number, image in enumerate(images):
        towers.agrees(image, maps[number, :, 0, 1:].sum(0), keys[number, 1:], 12, 4, 3)


@pytest.mark.parametrize("tower", ["siglip, full", "siglip, default", "clip, full", "dinov2, full"])
def test_stage_1_is_refused_by_apply_where_there_is_no_cls_token(tower: str) -> None:
    model = build(tower)
    with pytest.raises(DuetError, match=r"stage 1 needs .* to use stage 2 alone"):
        duet_vlm.apply(model, DuetConfig(**BOTH), tokenizer=tiny.Words())


@pytest.mark.parametrize("tower", TOWERS)
def test_budgets_count_the_tokens_that_a_tower_makes(tower: str) -> None:
    model = build(tower)
    if tower.startswith("pixtral"):
        with pytest.raises(DuetError, match="keeps fractions of an image"):
            DuetConfig.preset("pyramiddrop", model=model, tokens=12)
        assert DuetConfig.preset("pyramiddrop", model=model, keep=0.5).drops
        return
    assert facts_of(model).visual_tokens == TOWERS[tower][3]


@torch.no_grad()
def test_a_strategy_in_the_call_wins_where_nothing_is_merged() -> None:
    model = build("clip, full")
    model.config.vision_feature_select_strategy = "default"
    batch = inputs("clip, full")
    with duet_vlm.apply(model, DuetConfig(**STAGE_2), tokenizer=tiny.Words()) as handle:
        model(**batch, vision_feature_select_strategy="full", logits_to_keep=1)
        assert {s.tokens_per_layer[0] for s in handle.trace.samples} == {37}
