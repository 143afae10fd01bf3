"""ViP-LLaVA and LLaVA-NeXT-Video beside docs/method.md: scores, keys and tokens made by hand before the projector."""

from __future__ import annotations

import copy
from typing import Any

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

STAGE_1 = DuetConfig(dominant=13, contextual=4, cluster_width=3)


def attended(model: Any, pixels: torch.Tensor, layer: int) -> Any:
    """Maps and keys of one of the tower's layers, and its output."""
    tower = model.model.vision_tower
    attention = tower.encoder.layers[layer].self_attn
    return towers.look(tower, attention, attention.k_proj, lambda: tower(pixels, output_hidden_states=True))


def projected(model: Any, patches: torch.Tensor, decided: dict[str, Any]) -> torch.Tensor:
    """(n, D) what stage 1 leaves of one image's patches, projected after they are merged."""
    merged = towers.in_place(patches, decided)
    places = sorted(decided["dominant"] + decided["anchors"])
    made = model.model.multi_modal_projector(merged[places])
    return made.new_zeros(len(patches), made.shape[1]).index_copy(0, torch.tensor(places), made)


@pytest.mark.parametrize(("listed", "scoring"), [([1, -3, -2], -2), ([-1, 2], -1), (-2, -2), ([1], 0)])
@torch.no_grad()
def test_vipllava_scores_by_its_deepest_feature_layer(listed: Any, scoring: int) -> None:
    model = zoo_fixed.vipllava().eval()
    model.config.vision_feature_layer = listed
    indices = [listed] if isinstance(listed, int) else listed
    norm = model.model.multi_modal_projector
    norm.projector_layernorm = torch.nn.LayerNorm(32 * len(indices))
    norm.linear_1 = torch.nn.Linear(32 * len(indices), 32)
    tiny.randomize(model, torch.Generator().manual_seed(2))
    pixels = torch.randn(2, 3, 24, 24)
    maps, keys, seen = attended(model, pixels, scoring)
    with duet_vlm.apply(model, STAGE_1):
        output = model.model.get_image_features(pixels)
    patches = torch.cat([seen.hidden_states[i][:, 1:] for i in indices], dim=-1)
    for i, image in enumerate(image for merge in output.duet.decisions for image in _images(merge)):
        decided = towers.agrees(image, maps[i, :, 0, 1:].sum(0), keys[i, 1:], 13, 4, 3)
        close(output.duet.features[i], projected(model, patches[i], decided))


@pytest.mark.parametrize("mode", ["average", "max", "conv"])
@torch.no_grad()
def test_frames_are_merged_as_they_are_pooled(mode: str) -> None:
    """A frame of 9 pooled tokens retains a quarter of what 36 patches would: 4 of 17, one of them contextual."""
    model = zoo_fixed.llava_next_video(mode).eval()
    tiny.randomize(model, torch.Generator().manual_seed(2))
    pixels = torch.randn(2, zoo_fixed.FRAMES, 3, 24, 24)
    maps, keys, seen = attended(model, pixels.flatten(0, 1), -2)
    with duet_vlm.apply(model, STAGE_1):
        output = model.model.get_video_features(pixels)
    patches = model.model.vision_resampler(seen.hidden_states[-2][:, 1:])
    images = [image for merge in output.duet.decisions for image in _images(merge)]
    assert len(images) == len(pixels) * zoo_fixed.FRAMES
    frames = output.duet.features.flatten(0, 1).unflatten(0, (len(images), 9))
    for i, image in enumerate(images):
        scores = towers.squares(maps[i, :, 0, 1:].sum(0)[:, None], 6, 2)[:, 0]
        decided = towers.agrees(image, scores, towers.squares(keys[i, 1:], 6, 2), 3, 1, 3)
        close(frames[i], projected(model, patches[i], decided))


@torch.no_grad()
def test_a_video_is_one_span_and_its_frames_keep_the_budget() -> None:
    model = zoo.build("llava_next_video")
    batch = zoo.inputs("llava_next_video", ((5, "v", 6),))
    config = DuetConfig(13, 4, drops=[Drop(2, 0.5)], query="all")
    with duet_vlm.apply(model, config) as handle:
        model(**batch)
        (drop,) = [d for d in handle.trace.samples[0].drops if d.layer == 2]
        assert handle.trace.samples[0].tokens_per_layer == [12] * 2 + [6] * 3
    scores = dict(zip(drop.ranked, drop.scores, strict=True))
    assert drop.kept == sorted(sorted(scores, key=lambda place: -scores[place])[:6])


def test_what_is_refused_leaves_the_model_as_it_was() -> None:
    model = zoo.build("vipllava")
    before = copy.deepcopy(model.config.to_dict())
    with pytest.raises(DuetError, match=r"dominant 33 . contextual 4 = 37 is more than the 36 visual tokens"):
        duet_vlm.apply(model, DuetConfig(33, 4))
    with pytest.raises(DuetError, match="downsample is not possible for vipllava"):
        duet_vlm.apply(model, DuetConfig(downsample=(3, 3)))
    model.config.vision_feature_layer = before["vision_feature_layer"] = [0]
    with pytest.raises(DuetError, match=r"stage 1 needs a vision_feature_layer that is not 0, and this model uses \[0"):
        duet_vlm.apply(model, STAGE_1)
    assert model.config.to_dict() == before
