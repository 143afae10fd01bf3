"""VideoLLaMA 3 beside docs/method.md, and with videos whose processor has removed tokens."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import towers
import zoo
from exactness import close, generate, kept
from oracle import masked_stock

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.engine.trace import _images
from duet_vlm.families import family_of

STAGE_1 = DuetConfig(dominant=4, contextual=2, cluster_width=2)
STAGE_2 = DuetConfig(drops=[Drop(2, 0.5), Drop(4, 0.25)])
ROWS: zoo.Rows = ((5, "v", 6), (2, "i", 3, "v", 6))


def rotated(core: Any, attention: Any, given: dict[str, Any]) -> torch.Tensor:
    """(patches, d) keys of the scoring attention, averaged over heads."""
    seen: list[Any] = []
    hook = attention.register_forward_pre_hook(lambda m, a, k: seen.append((a, k)), with_kwargs=True)
    core.get_image_features(**given)
    hook.remove()
    ((hidden,), told) = seen[0]
    cos, sin = (x[:, None] for x in told["position_embeddings"])
    plain = attention.k_proj(hidden).unflatten(1, (4, 8))
    half = torch.cat([-plain[..., 4:], plain[..., :4]], dim=-1)
    return (plain * cos + half * sin).mean(1)


@pytest.mark.parametrize("side", [1, 2])
@torch.no_grad()
def test_scores_are_attention_received_within_a_frame(side: int) -> None:
    """Two entries of two frames and one, merged by one patch or four."""
    model = zoo.build("video_llama_3", "eager")
    core, grids = model.model, torch.tensor([[2, 4, 6], [1, 4, 8]])
    pixels = torch.randn(2 * 24 + 32, 48, generator=torch.Generator().manual_seed(3))
    given = dict(pixel_values=pixels, image_grid_thw=grids, image_merge_sizes=torch.tensor([side, side]))
    attention, maps = core.vision_model.encoder.layers[-1].self_attn, []
    hook = attention.register_forward_hook(lambda m, a, out: maps.extend(out[1]))
    stock = torch.cat(core.get_image_features(**given).pooler_output)
    hook.remove()
    keys = rotated(core, attention, given).split([24, 24, 32])
    with duet_vlm.apply(model, STAGE_1):
        output = core.get_image_features(**given)
    found, start = torch.cat(list(output.duet.features)), 0
    images = [image for merge in output.duet.decisions for image in _images(merge)]
    assert len(images) == len(maps) == 3
    for image, attended, key in zip(images, maps, keys, strict=True):
        count = len(key) // side**2
        scores = towers.received(attended)[0].unflatten(0, (count, -1)).mean(1)
        decided = towers.agrees(image, scores, key.unflatten(0, (count, -1)).mean(1), 4, 2, 2)
        part = slice(start, start + count)
        close(found[part], towers.in_place(stock[part], decided))
        start = part.stop


def with_removed_tokens() -> dict[str, Any]:
    """The rows with every third token of each video gone from prompt and mask, as the processor does it."""
    batch = zoo.inputs("video_llama_3", ROWS)
    left = torch.arange(int((batch["input_ids"] == zoo.VIDEO).sum())) % 3 > 0
    rows, start = [], 0
    for ids, real in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True):
        row = ids[real]
        places = (row == zoo.VIDEO).nonzero()[:, 0]
        gone = places[~left[start : start + len(places)]]
        start += len(places)
        rows.append(row[~torch.isin(torch.arange(len(row)), gone)])
    return {**batch, **tiny.stack(rows, "left"), "video_compression_mask": left}


@torch.no_grad()
def test_stage_2_goes_on_with_what_the_processor_left() -> None:
    model, batch = zoo.build("video_llama_3"), with_removed_tokens()
    with duet_vlm.apply(model, STAGE_2, tokenizer=tiny.Words()) as handle:
        out = model(**batch)
        hidden, there = masked_stock(model, batch, kept(handle, batch), renumber=True)
        close(out.logits[there], model.lm_head(hidden)[there])
        cached, plain = (torch.stack(generate(model, batch, 5, use_cache=on).logits) for on in (True, False))
        close(cached, plain)
        video = (batch["input_ids"] == zoo.VIDEO).sum(1).tolist()
        assert handle.trace.samples[0].tokens_per_layer == [video[0]] * 2 + [video[0] // 2] * 2 + [video[0] // 4]


@torch.no_grad()
def test_a_mask_that_leaves_everything_changes_nothing() -> None:
    model, batch = zoo.build("video_llama_3"), zoo.inputs("video_llama_3", ROWS)
    left = torch.ones(int((batch["input_ids"] == zoo.VIDEO).sum()), dtype=torch.bool)
    with duet_vlm.apply(model, STAGE_1):
        expected = model(**batch).logits
        assert torch.equal(model(**batch, video_compression_mask=left).logits, expected)


@torch.no_grad()
def test_stage_1_refuses_what_the_processor_left() -> None:
    model, batch = zoo.build("video_llama_3"), with_removed_tokens()
    with duet_vlm.apply(model, STAGE_1):
        with pytest.raises(DuetError, match="use_token_compression=False, or use stage 2 alone"):
            model(**batch)
        with pytest.raises(DuetError, match="use_token_compression=False, or use stage 2 alone"):
            generate(model, batch)


def test_grids() -> None:
    config = zoo.build("video_llama_3").config
    family = family_of(config)
    assert (family.tokens_of_grid(config, (4, 6)), family.tokens_of_grid(config, (3, 4, 6))) == (24, 18)
    batch = zoo.inputs("video_llama_3", ((5, "v", 6),))
    rows, columns = family.token_grid(config, batch)
    assert rows * columns * int(batch["video_grid_thw"][0, 0]) == int(zoo.visual(batch).sum())
