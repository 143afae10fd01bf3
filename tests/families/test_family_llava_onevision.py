"""LLaVA-OneVision beside docs/method.md: scores and keys follow the stock packing, which is done here by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import towers
import transformers
import zoo
import zoo_fixed
from torch import Tensor
from torch.nn.functional import interpolate

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.engine.trace import _images
from duet_vlm.families import family_of, fixed

STAGE_1 = DuetConfig(dominant=6, contextual=3, cluster_width=4)
# (height, width) -> tiles, rows and columns of patches without padding, and what they shrink to (2 crops at most)
PACKED = {
    (24, 48): ((1, 2), (6, 12), (6, 12)),
    (20, 46): ((1, 2), (6, 12), (6, 12)),
    (48, 48): ((2, 2), (12, 12), (8, 8)),
    (40, 48): ((2, 2), (10, 12), (7, 9)),
    (24, 24): ((1, 1), (6, 6), (6, 6)),
    (3, 48): ((1, 2), (0, 12), (0, 12)),  # tiles of padding alone
}


def pack(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(crops, 36, C) -> (n, C): base crop, then the tiles' patches in raster order, without row ends."""
    (rows, columns), (height, width), small = PACKED[size]
    tiles = x[1:].unflatten(0, (rows, columns)).unflatten(2, (6, 6))
    whole = torch.zeros(rows * 6, columns * 6, x.shape[2])
    for row in range(rows * 6):
        for column in range(columns * 6):
            whole[row, column] = tiles[row // 6, column // 6, row % 6, column % 6]
    top, left = (rows * 6 - height) // 2, (columns * 6 - width) // 2
    whole = whole[top : top + height, left : left + width]
    if small != (height, width):
        whole = interpolate(whole.permute(2, 0, 1)[None], small, mode="bilinear")[0].permute(1, 2, 0)
    return torch.cat([x[0], whole.flatten(0, 1)])


def look(core: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    attention = core.vision_tower.encoder.layers[-1].self_attn
    maps, keys, _ = towers.look(core, attention, attention.k_proj, lambda: core.vision_tower(pixels))
    return towers.received(maps), keys


@torch.no_grad()
def test_images_are_merged_as_packed() -> None:
    model = zoo.build("llava_onevision")
    core, sizes = model.model, list(PACKED)
    crops = [1 + rows * columns for (rows, columns), _, _ in PACKED.values()]
    pixels = torch.zeros(len(sizes), 5, 3, 24, 24)
    for i, count in enumerate(crops):
        pixels[i, :count] = torch.randn(count, 3, 24, 24)
    given = dict(pixel_values=pixels, image_sizes=torch.tensor(sizes))
    stock = core.get_image_features(**given).pooler_output
    with duet_vlm.apply(model, STAGE_1):
        output = core.get_image_features(**given)
    for i, size in enumerate(sizes):
        scores, keys = look(core, pixels[i, : crops[i]])
        scores, keys = pack(scores[..., None], size)[:, 0], pack(keys, size)
        newline = (stock[i] == core.image_newline).all(1)
        rows, columns = PACKED[size][2]
        assert len(scores) == 36 + rows * columns and int(newline.sum()) == rows
        decided = towers.agrees(_images(output.duet.decisions[i])[0], scores, keys, 6, 3, 4)
        torch.testing.assert_close(output.duet.features[i][~newline], towers.in_place(stock[i][~newline], decided))
        assert not output.duet.features[i][newline].any()


@torch.no_grad()
def test_images_of_a_prompt_with_several_are_one_crop() -> None:
    model = zoo.build("llava_onevision")
    given = dict(
        pixel_values=torch.randn(2, 1, 3, 24, 24), image_sizes=torch.tensor([[24, 48], [48, 48]]),
        batch_num_images=torch.tensor([2]),
    )  # fmt: skip
    stock = model.model.get_image_features(**given).pooler_output
    with duet_vlm.apply(model, STAGE_1):
        merged = model.model.get_image_features(**given)
    for before, after, merge in zip(stock, merged.duet.features, merged.duet.decisions, strict=True):
        assert len(before) == len(after) == 37 and merge.scores.shape == (1, 36) and not after[-1].any()
        assert int((after != 0).any(1).sum()) == 9


@torch.no_grad()
def test_frames_are_merged_as_pooled_one_by_one() -> None:
    model, batch = zoo.build("llava_onevision"), zoo.inputs("llava_onevision", ((3, "v", 5),))
    core, pixels = model.model, batch["pixel_values_videos"]
    stock = core.get_video_features(pixels).pooler_output[0]
    scores, keys = look(core, pixels[0])
    small = DuetConfig(dominant=4, contextual=2, cluster_width=2)
    with duet_vlm.apply(model, small) as handle:
        merged = core.get_video_features(pixels)
        model(**batch)
        kept = handle.trace.samples[0].drops[0].kept
    for frame in range(zoo_fixed.FRAMES):
        part = slice(9 * frame, 9 * frame + 9)
        means = towers.squares(scores[frame][:, None], 6, 2)[:, 0], towers.squares(keys[frame], 6, 2)
        decided = towers.agrees(_images(merged.duet.decisions[frame])[0], *means, 4, 2, 2)
        torch.testing.assert_close(merged.duet.features[0, part], towers.in_place(stock[part], decided))
    assert len(kept) == 6 * zoo_fixed.FRAMES  # the newline behind the video is gone in the decoder


def test_512_frames_hold_the_statistics_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vision = dict(zoo_fixed.SIGLIP, image_size=24, hidden_size=256, intermediate_size=16, num_hidden_layers=1,
                  num_attention_heads=1)  # fmt: skip
    config = zoo.build("llava_onevision").config
    config.vision_config = transformers.SiglipVisionConfig(**vision, vision_use_head=False)
    model = transformers.LlavaOnevisionForConditionalGeneration(config).eval()
    alive = towers.Alive(fixed.received, (100, 500))
    monkeypatch.setattr(fixed, "received", alive)
    with duet_vlm.apply(model, DuetConfig(dominant=2, contextual=1)), torch.no_grad():
        out = model.model.get_video_features(torch.randn(1, 512, 3, 24, 24)).duet.features
    assert out.shape == (1, 512 * 9 + 1, 32) and alive.count == 512 and alive.images == {1}
    tokens, trace = 9 * 32 * 4, 9 * 4 + 9 * 8 * 4
    assert 0 < alive.growth < tokens + trace < 9 * 256 * 4


def test_a_chunk_with_less_than_a_base_crop_is_refused() -> None:
    model, batch = zoo.build("llava_onevision"), zoo.inputs("llava_onevision", ((4, "i", 5),))
    with duet_vlm.apply(model, STAGE_1), pytest.raises(ValueError, match="leave out prefill_chunk_size"):
        model.generate(**batch, max_new_tokens=2, prefill_chunk_size=8)


def test_removed_copied_and_refused() -> None:
    model = zoo.build("llava_onevision")
    with duet_vlm.apply(model, STAGE_1):
        clone = copy.deepcopy(model)
        assert clone.model.__dict__["apply_pooling"].around.__self__.core is clone.model
    assert not {"apply_pooling", "pack_image_features"} & set(model.model.__dict__)
    model.config.vision_feature_select_strategy = "default"
    with pytest.raises(ValueError, match="vision_feature_select_strategy 'full'"):
        duet_vlm.apply(model, STAGE_1)


@pytest.mark.parametrize("size", PACKED)
def test_tokens_of_a_grid(size: tuple[int, int]) -> None:
    config = zoo.build("llava_onevision").config
    _, grid, _ = PACKED[size]
    family = family_of(config)
    tokens = family.tokens_of_grid(config, grid) + family.row_ends(config, grid)
    assert tokens == zoo_fixed.onevision_tokens(size)[1]
    assert family.tokens_of_grid(config, (8, 6, 6)) == 9  # one pooled frame
    with pytest.raises(ValueError, match="different numbers of visual tokens"):
        family.visual_tokens(config)
