"""Mistral 3, and LLaVA with a Pixtral tower, beside docs/method.md: images of several sizes in one call."""

from __future__ import annotations

from typing import Any

import pytest
import repeats
import tiny
import torch
import towers
import transformers
import zoo
import zoo_pixtral
from exactness import close, generate, kept
from oracle import masked_stock

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.engine.trace import _images
from duet_vlm.families import audience, family_of
from duet_vlm.families.image_shape import ImageShape

SIZES = [(32, 32), (16, 24), (24, 32)]  # (height, width)
STAGE_1 = DuetConfig(dominant=4, contextual=2, cluster_width=2)


def llava() -> Any:
    """LLaVA with a Pixtral tower: every patch is a visual token."""
    vision = transformers.PixtralVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=4
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=transformers.LlamaConfig(**tiny.TEXT), image_token_id=tiny.IMAGE,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    model = transformers.LlavaForConditionalGeneration(config).eval()
    tiny.randomize(model, torch.Generator().manual_seed(0))
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = tiny.PAD, None
    return model


def build(kind: str) -> Any:
    return zoo.build("mistral3") if kind == "mistral3" else llava()


def pixels() -> dict[str, torch.Tensor]:
    generator, images = torch.Generator().manual_seed(5), torch.zeros(len(SIZES), 3, 32, 32)
    for image, (height, width) in zip(images, SIZES, strict=True):
        image[:, :height, :width] = torch.randn(3, height, width, generator=generator)
    return {"pixel_values": images, "image_sizes": torch.tensor(SIZES)}


def means(x: torch.Tensor, rows: int, columns: int, side: int) -> torch.Tensor:
    """(rows * columns, C) -> the mean of every square of patches, row by row."""
    return torch.stack(
        [
            x[[(r + i) * columns + c + j for i in range(side) for j in range(side)]].mean(0)
            for r in range(0, rows, side)
            for c in range(0, columns, side)
        ]
    )


@pytest.mark.parametrize("kind", ["mistral3", "llava"])
@torch.no_grad()
def test_scores_are_attention_received_within_an_image(kind: str) -> None:
    """The stock tower has all images in one row, and hides the others of a patch by a mask."""
    model, side = build(kind), 2 if kind == "mistral3" else 1
    core, given = model.model, pixels()
    attention = core.vision_tower.transformer.layers[-1].attention
    maps, _, stock = towers.look(model, attention, attention.k_proj, lambda: core.get_image_features(**given))
    rope, entering = core.vision_tower.patch_positional_embedding, inputs_of(attention, core, given)
    with duet_vlm.apply(model, STAGE_1):
        output = core.get_image_features(**given)
    images = [image for merge in output.duet.decisions for image in _images(merge)]
    start, received = 0, towers.received(maps)[0]
    for number, (height, width) in enumerate(SIZES):
        rows, columns = height // 4, width // 4
        part = slice(start, start + rows * columns)
        places = torch.tensor([(r, c) for r in range(rows) for c in range(columns)])
        cos, sin = rope(entering, places)
        plain = attention.k_proj(entering[part]).unflatten(1, (4, 8))
        half = torch.cat([-plain[..., 4:], plain[..., :4]], dim=-1)
        rotated = (plain * cos[:, None] + half * sin[:, None]).mean(1)
        scores = means(received[part, None], rows, columns, side)[:, 0]
        decided = towers.agrees(images[number], scores, means(rotated, rows, columns, side), 4, 2, 2)
        close(output.duet.features[number], towers.in_place(stock.pooler_output[number], decided))
        start = part.stop


def inputs_of(attention: Any, core: Any, given: dict[str, Any]) -> torch.Tensor:
    """(patches of all images, D) what the scoring attention is given."""
    seen: list[torch.Tensor] = []
    hook = attention.register_forward_pre_hook(lambda m, a, k: seen.append(k["hidden_states"][0]), with_kwargs=True)
    core.get_image_features(**given)
    hook.remove()
    return seen[0]


@torch.no_grad()
def test_both_stages_with_llava_equal_the_oracle() -> None:
    model, rows, seen = llava(), [], []
    for number, words in enumerate((9, 4)):
        generator = torch.Generator().manual_seed(number)
        ids, tensors = zoo_pixtral.image(generator, side=4)
        rows.append(torch.tensor([5, *ids, *torch.randint(3, 90, (words,), generator=generator).tolist()]))
        seen.append(tensors)
    batch: dict[str, Any] = tiny.stack(rows, "left")
    batch |= {name: torch.cat([one[name] for one in seen]) for name in seen[0]}
    config = DuetConfig(13, 4, drops=[Drop(2, 0.5), Drop(4, 0.25)])
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()) as handle:
        out = model(**batch)
        hidden, there = masked_stock(model, batch, kept(handle, batch), renumber=True)
        close(out.logits[there], model.lm_head(hidden)[there])
        cached, plain = (torch.stack(generate(model, batch, 5, use_cache=on).logits) for on in (True, False))
        close(cached, plain)
        assert {sample.tokens_per_layer[0] for sample in handle.trace.samples} == {17}
        with pytest.raises(DuetError, match="images came without image_sizes"):
            model(**{name: x for name, x in batch.items() if name != "image_sizes"})


@torch.no_grad()
def test_row_breaks_are_text_and_stay() -> None:
    model, batch = zoo.build("mistral3"), zoo.inputs("mistral3", ((4, "i", 5),))
    with duet_vlm.apply(model, DuetConfig(drops=[Drop(2, 0.0)])) as handle:
        out = model(**batch)
    words = int((batch["input_ids"] != zoo.IMAGE).sum())
    assert handle.trace.samples[0].drops[-1].kept == []
    assert [layer.keys.shape[-2] for layer in out.past_key_values.layers][-1] == words
    assert int((batch["input_ids"] == zoo_pixtral.BETWEEN).sum()) > 0


def test_grids_and_budgets() -> None:
    config = zoo.build("mistral3").config
    family, batch = family_of(config), zoo.inputs("mistral3", ((4, "i", 5),))
    rows, columns = family.token_grid(config, batch)
    assert rows * columns == int((batch["input_ids"] == zoo.IMAGE).sum())
    # an image processor that is not told of the merging may leave an odd number of rows
    assert family.grid_of(config, {"image_sizes": torch.tensor([[28, 36]])}) == (1, 8, 10)
    assert ImageShape.of(config, (8, 10)).visual_tokens == 20
    with pytest.raises(DuetError, match="is less than one visual token"):
        family.tokens_of_grid(config, (1, 8))
    with pytest.raises(DuetError, match="keeps fractions of an image"):
        DuetConfig.preset("pyramiddrop", model=config, tokens=12)


@pytest.mark.parametrize("more", [{}, {"dominant": 5, "contextual": 2, "cluster_width": 2}])
@torch.no_grad()
def test_llava_leaves_out_patches_that_repeat(monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]) -> None:
    """Every patch is a block there; the stock tower under a mask."""
    monkeypatch.setattr(repeats, "SIDE", 1)
    model, given = llava(), repeats.repeating(pixels())
    alive = repeats.tokens_kept(given)
    with repeats.masked(model, given):
        stock = torch.cat([*repeats.encode(model, given).pooler_output])
    with duet_vlm.apply(model, DuetConfig(pixelprune=0, **more)), audience.for_engine():
        output = repeats.encode(model, given)
    found, sizes = torch.cat([*output.duet.features]), torch.cat(output.duet.sizes)
    unchanged = (sizes == 1).nonzero()[:, 0].tolist()
    assert set(unchanged) <= set(alive.nonzero()[:, 0].tolist()) and (sizes == alive).all() == (not more)
    close(found[unchanged], stock[unchanged])
    assert not found[sizes == 0].any() and (not more or len(unchanged) >= 15)
