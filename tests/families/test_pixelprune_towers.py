"""Towers without the blocks that repeat, beside the stock tower under a mask, at the original positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from exactness import close
from repeats import encode, kept_of, masked, only, pictures, repeating, tokens_kept
from torch import Tensor

import duet_vlm
from duet_vlm import DuetConfig, DuetError
from duet_vlm.engine.trace import _images
from duet_vlm.families import audience, family_of

FAMILIES = (
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "glm4v", "glm46v", "glm_ocr", "paddleocr_vl",
    "mistral3",
)  # fmt: skip
VIDEOS = ("qwen2_5_vl", "qwen3_vl")
CASES = [(family, "image") for family in FAMILIES] + [(family, "video") for family in (*VIDEOS, "glm4v_video")]
family_and_modality = pytest.mark.parametrize(("family", "modality"), CASES)
attention = pytest.mark.parametrize("attention", ["sdpa", "eager"])
EXACT = DuetConfig(pixelprune=0)


def given(family: str, modality: str) -> dict[str, Any]:
    """Three images of different sizes, or two videos."""
    return only(family, modality, 3 if modality == "image" else 2, seed=2)


def all_of(output: Any) -> Tensor:
    return torch.cat([images.flatten(0, -2) for images in output.pooler_output])


@family_and_modality
@attention
@torch.no_grad()
def test_kept_tokens_are_those_of_a_tower_that_does_not_see_the_others(
    family: str, modality: str, attention: str
) -> None:
    model, batch = zoo.build(family, attention), repeating(given(family, modality))
    kept = tokens_kept(batch)
    with masked(model, batch):
        stock = encode(model, batch, modality)
    patches: list[int] = []
    hook = layer_of(model).register_forward_pre_hook(
        lambda m, a, k: patches.append((a[0] if a else k["hidden_states"]).shape[-2]), with_kwargs=True
    )
    with duet_vlm.apply(model, EXACT), audience.for_engine():
        output = encode(model, batch, modality)
    hook.remove()
    found, sizes = torch.cat([*output.duet.features]), torch.cat(output.duet.sizes)
    assert 0 < int(kept.sum()) < len(kept) and patches == [4 * int(kept.sum())]
    assert torch.equal(sizes, kept.float()) and not found[~kept].any()
    close(found[kept], all_of(stock)[kept], 1e-5)
    for ours, theirs in zip(getattr(output, "deepstack_features", None) or [], stock_deepstack(stock), strict=True):
        close(torch.cat([*ours])[kept], torch.cat([*theirs])[kept], 1e-5)
    assert [len(image.dominant) for image in images_of(output)] == [int(kept_of(x).sum()) for x in pictures(batch)]


def stock_deepstack(output: Any) -> list[Any]:
    return getattr(output, "deepstack_features", None) or []


def images_of(output: Any) -> list[Any]:
    return [image for merge in output.duet.decisions for image in _images(merge)]


def layer_of(model: Any) -> Any:
    """The first layer of the tower."""
    core = model.model
    if hasattr(core, "vision_tower"):
        return core.vision_tower.transformer.layers[0]
    return core.visual.blocks[0] if hasattr(core.visual, "blocks") else core.visual.vision_model.encoder.layers[0]


@family_and_modality
@torch.no_grad()
def test_where_nothing_repeats_the_tower_is_called_as_stock_calls_it(family: str, modality: str) -> None:
    model, batch = zoo.build(family), given(family, modality)
    tower = getattr(model.model, family_of(model.config).towers[0])
    stock = all_of(encode(model, batch, modality))
    calls: list[Any] = []
    hook = tower.register_forward_pre_hook(lambda m, a, k: calls.append((len(a), sorted(k))), with_kwargs=True)
    encode(model, batch, modality)
    with duet_vlm.apply(model, EXACT), audience.for_engine():
        # behind ours
        hook.remove()
        hook = tower.register_forward_pre_hook(lambda m, a, k: calls.append((len(a), sorted(k))), with_kwargs=True)
        output = encode(model, batch, modality)
    hook.remove()
    assert calls[0] == calls[1] and torch.equal(torch.cat([*output.duet.features]), stock)
    assert all(bool((sizes == 1).all()) for sizes in output.duet.sizes)


@family_and_modality
@torch.no_grad()
def test_of_an_image_that_is_all_alike_one_block_enters(family: str, modality: str) -> None:
    model, batch = zoo.build(family), repeating(given(family, modality), share=1.1)
    kept = tokens_kept(batch)
    assert int(kept.sum()) == len(pictures(batch))  # images and frames
    with duet_vlm.apply(model, EXACT), audience.for_engine():
        output = encode(model, batch, modality)
    with masked(model, batch):
        stock = all_of(encode(model, batch, modality))
    close(torch.cat([*output.duet.features])[kept], stock[kept], 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_features_that_somebody_else_asks_for_are_stocks(family: str) -> None:
    model, batch = zoo.build(family), repeating(given(family, "image"))
    stock = all_of(encode(model, batch))
    for more in ({}, {"dominant": 3, "contextual": 2}):
        with duet_vlm.apply(model, DuetConfig(pixelprune=0, **more)):
            output = encode(model, batch)
        assert torch.equal(all_of(output), stock) and not hasattr(output, "duet")


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_threshold_is_in_levels_of_the_familys_own_normalisation(family: str) -> None:
    """Blocks that differ by two levels from their neighbour, in one channel of one pixel."""
    model, batch = zoo.build(family), repeating(given(family, "image"), share=1.1)
    std = {"qwen3_vl": 0.5, "qwen3_vl_moe": 0.5, "qwen3_5": 0.5}.get(family, 0.27577711)
    for image in pictures(batch):
        last = image[-1, -1]  # of the last channel, the last pixel
        last[(-1,) * last.ndim if last.ndim != 3 or "image_sizes" not in batch else (2, -1, -1)] += 2 / 255 / std
    images = len(pictures(batch))
    for threshold, kept in ((0, 2 * images), (1.9, 2 * images), (2, images), (3, images)):
        with duet_vlm.apply(model, DuetConfig(pixelprune=threshold)), audience.for_engine():
            assert sum(int(sizes.sum()) for sizes in encode(model, batch).duet.sizes) == kept, threshold


@pytest.mark.parametrize("family", ["llava", "internvl", "gemma3", "qwen2_5_omni_thinker", "llava_next", "smolvlm"])
def test_towers_that_take_images_whole_are_refused(family: str) -> None:
    model = zoo.build(family)
    with pytest.raises(
        DuetError, match=f"pixelprune is not possible for {model.config.model_type}: it is for"
    ) as error:
        duet_vlm.apply(model, EXACT)
    assert str(error.value).endswith(".") and duet_vlm.handle_of(model) is None
