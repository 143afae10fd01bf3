"""PaliGemma, the first and the second, beside docs/method.md: a prompt whose tokens see each other both ways."""

from __future__ import annotations

import pytest
import tiny
import torch
import towers
import zoo
import zoo_fixed
from exactness import close

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.engine.trace import _images


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_a_question_ranks_by_what_it_sees_on_both_sides(second: bool, layer: int) -> None:
    """Layer 0 of the second has a window, which is shorter than the prompt and hides none of it."""
    torch.manual_seed(0)
    model, batch = zoo_fixed.paligemma(second).eval(), zoo.inputs("paligemma", ((3, "i", 9),))
    tiny.randomize(model, torch.Generator().manual_seed(0))
    model.set_attn_implementation("eager")
    maps = model(**batch, output_attentions=True, use_cache=False).attentions[layer][0]
    assert bool((maps[:, 0, -1] > 0).all())  # the first word sees the last
    visual = (batch["input_ids"][0] == zoo.IMAGE).nonzero()[:, 0]
    asked = range(int(visual[-1]) + 1, batch["input_ids"].shape[1])
    expected = maps[:, asked].mean((0, 1))[visual]
    with duet_vlm.apply(model, DuetConfig(drops=[Drop(1, 0.4, rank_at=layer)], query="all")) as handle:
        model(**batch)
        drop = handle.trace.samples[0].drops[0]
    torch.testing.assert_close(torch.tensor(drop.scores), expected, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_without_types_a_question_sees_what_stands_before_it() -> None:
    """As in the stock model, which makes a causal mask then."""
    model, batch = zoo.build("paligemma", "eager"), zoo.inputs("paligemma", ((3, "i", 9),))
    del batch["token_type_ids"]
    maps = model(**batch, output_attentions=True, use_cache=False).attentions[1][0]
    visual = (batch["input_ids"][0] == zoo.IMAGE).nonzero()[:, 0]
    expected = maps[:, int(visual[-1]) + 1 :].mean((0, 1))[visual]
    with duet_vlm.apply(model, DuetConfig(drops=[Drop(1, 0.4)], query="all")) as handle:
        model(**batch)
        drop = handle.trace.samples[0].drops[0]
    torch.testing.assert_close(torch.tensor(drop.scores), expected, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_scores_are_attention_received_in_the_last_layer() -> None:
    model = zoo.build("paligemma")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    core = model.model
    attention = core.vision_tower.encoder.layers[-1].self_attn
    maps, keys, stock = towers.look(
        model, attention, attention.k_proj, lambda: core.get_image_features(pixel_values=pixels)
    )
    with duet_vlm.apply(model, DuetConfig(dominant=9, contextual=3, cluster_width=2)):
        output = core.get_image_features(pixel_values=pixels)
    images = [image for merge in output.duet.decisions for image in _images(merge)]
    for number, image in enumerate(images):
        decided = towers.agrees(image, towers.received(maps)[number], keys[number], 9, 3, 2)
        close(output.duet.features[number], towers.in_place(stock.pooler_output[number], decided))


@torch.no_grad()
def test_an_image_of_a_later_turn_is_refused() -> None:
    model, batch = zoo.build("paligemma"), zoo.inputs("paligemma", ((3, "i", 9),))
    with duet_vlm.apply(model, DuetConfig(drops=[Drop(2, 0.5)], query="last")):
        cache = model(**batch, use_cache=True).past_key_values
        lengths = [layer.get_seq_length() for layer in cache.layers]
        mask = torch.ones(1, 2 * batch["input_ids"].shape[1], dtype=torch.long)
        with pytest.raises(DuetError, match="begin with the image, in a new cache"):
            model(**batch | {"attention_mask": mask}, past_key_values=cache)
        assert [layer.get_seq_length() for layer in cache.layers] == lengths
