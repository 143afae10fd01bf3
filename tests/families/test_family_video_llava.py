"""Video-LLaVA beside docs/method.md: frame by frame in the encoder, all frames of a video as one in the decoder."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import tiny
import torch
import towers
import transformers
import zoo
from zoo_fixed import FRAMES

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.families import cls_tower
from duet_vlm.presets import preset

STAGE_1 = DuetConfig(dominant=9, contextual=3, cluster_width=4)


def cls_row(core: Any, tower: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 36) the attention that CLS pays in the last layer but one, summed over heads, and the patches' keys."""
    attention = tower.encoder.layers[-2].self_attn
    maps, keys, _ = towers.look(core, attention, attention.k_proj, lambda: tower(pixels))
    return maps[:, :, 0, 1:].sum(1), keys[:, 1:]


def test_every_frame_and_image_is_merged_alone_with_its_own_tower() -> None:
    model, batch = zoo.build("video_llava"), zoo.inputs("video_llava", ((3, "i", 4, "v", 5),))
    core = model.model
    frames = batch["pixel_values_videos"].flatten(0, 1)
    expected = [
        (*cls_row(core, core.image_tower, batch["pixel_values"]), core.get_image_features(batch["pixel_values"])),
        (*cls_row(core, core.video_tower, frames), core.get_video_features(batch["pixel_values_videos"])),
    ]
    with duet_vlm.apply(model, STAGE_1) as handle, torch.no_grad():
        model(**batch)
        got = [core.get_image_features(batch["pixel_values"]), core.get_video_features(batch["pixel_values_videos"])]
        images = iter(handle.trace.images)
        for (scores, keys, _), merged in zip(expected, got, strict=True):
            for one, its_keys, features in zip(scores, keys, merged.duet.features, strict=True):
                towers.agrees(next(images), one, its_keys, 8, 3, 4)  # CLS is one of the nine
                assert bool((features[:12] != 0).any(1).all()) and not features[12:].any()
        assert not list(images)
    # videos keep their CLS token in stock: it is the first that is retained, and dominant ones follow in image order
    for number in range(FRAMES):
        stock, merged = expected[1][2].pooler_output[number], got[1].duet.features[number]
        dominant = handle.trace.images[1 + number].dominant
        torch.testing.assert_close(merged[0], stock[0])
        torch.testing.assert_close(merged[1:9], stock[[1 + i for i in dominant]])


def test_contextual_tokens_enter_the_projector_as_anchor_plus_mean() -> None:
    model, batch = zoo.build("video_llava"), zoo.inputs("video_llava", ((3, "v", 5),))
    core, frames = model.model, batch["pixel_values_videos"].flatten(0, 1)
    with torch.no_grad():
        hidden = core.video_tower(frames, output_hidden_states=True).hidden_states[-2][:, 1:]
        with duet_vlm.apply(model, STAGE_1) as handle:
            model(**batch)
            merged = core.get_video_features(batch["pixel_values_videos"]).duet.features
        for patches, features, image in zip(hidden, merged, handle.trace.images, strict=True):
            contextual = oracle.contextual(patches, image.anchors, image.clusters)
            torch.testing.assert_close(features[9:12], core.multi_modal_projector(contextual))


def test_a_video_is_one_span_and_an_image_beside_it_another() -> None:
    model, batch = zoo.build("video_llava"), zoo.inputs("video_llava", ((3, "i", "v", 5),))
    config = DuetConfig(dominant=9, contextual=3, drops=[Drop(2, 0.5), Drop(4, 0.3)], query="all")
    with duet_vlm.apply(model, config) as handle, torch.no_grad():
        model(**batch)
        entrance, first, second = handle.trace.samples[0].drops
    is_video = (batch["input_ids"][0] == zoo.VIDEO).tolist()

    def counts(kept: list[int]) -> tuple[int, int]:
        video = sum(is_video[i] for i in kept)
        return len(kept) - video, video

    whole = 12 * FRAMES
    assert counts(entrance.kept) == (12, whole)
    assert counts(first.kept) == (6, whole // 2)
    assert counts(second.kept) == (3, int(0.3 * whole))
    scores = dict(zip(first.ranked, first.scores, strict=True))
    best = sorted((i for i in first.ranked if is_video[i]), key=lambda i: -scores[i])[: whole // 2]
    assert sorted(best) == [i for i in first.kept if is_video[i]]  # whichever frames they are in


def test_512_frames_hold_the_statistics_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = dict(tiny.VISION, hidden_size=256, intermediate_size=16, num_hidden_layers=2, num_attention_heads=1)
    config = transformers.VideoLlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**wide), text_config=transformers.LlamaConfig(**tiny.TEXT),
        image_token_index=zoo.IMAGE, video_token_index=zoo.VIDEO,
    )  # fmt: skip
    model = transformers.VideoLlavaForConditionalGeneration(config).eval()
    alive = towers.Alive(cls_tower.cls_attention, (100, 500))
    monkeypatch.setattr(cls_tower, "cls_attention", alive)
    with duet_vlm.apply(model, DuetConfig(dominant=3, contextual=1)), torch.no_grad():
        out = model.model.get_video_features(torch.randn(1, 512, 3, 24, 24)).duet.features
    assert out.shape == (512, 37, 32) and alive.count == 512 and alive.images == {1}
    keys, retained = 36 * 256 * 4, 4 * 256 * 4
    assert 0 < alive.growth < retained + 36 * 4 + 36 * 8 * 3 < keys / 4


def test_what_video_llava_cannot_do_is_refused_and_leaves_no_hook() -> None:
    model = zoo.build("video_llava")
    with pytest.raises(ValueError, match=r"dominant 33 . contextual 7 = 40 is more than the 36 visual tokens"):
        duet_vlm.apply(model, DuetConfig(dominant=33, contextual=7))
    with pytest.raises(ValueError, match="downsample is not possible for video_llava"):
        duet_vlm.apply(model, DuetConfig(downsample=(3, 3)))
    model.config.vision_feature_select_strategy = "full"
    with pytest.raises(ValueError, match="vision_feature_select_strategy 'default'"):
        duet_vlm.apply(model, STAGE_1)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.model.image_tower.modules())


def test_published_budgets() -> None:
    config = transformers.VideoLlavaConfig(text_config=transformers.LlamaConfig())
    for frame, settings in ((120, (160, 32)), (17, (22, 5))):
        found = preset("duet", model=config, tokens=frame)
        assert (found.dominant, found.contextual) == settings
        assert [*found.drops] == [Drop(16, 0.5), Drop(24, 0.0)]
