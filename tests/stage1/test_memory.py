"""What stage 1 holds at a time on large images and long videos, counted on live tensors."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import tiny
import torch
import zoo_qwen
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.config.registry import STAGE1, at_encoder
from duet_vlm.stage1 import Encoded, merge
from duet_vlm.stage2 import ranking
from duet_vlm.tensors.streamed import Places, Softmax, block_size

MEGABYTE = 2**20


class Live(TorchDispatchMode):
    """Bytes of every storage made and still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.known = 0, 0, set[int]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor) and x.device.type == "cpu":
                storage = x.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self.known:
                    self.known.add(key)
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.gone, key, size)
        return out

    def gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def tower(width: int, heads: int) -> Any:
    vision = dict(
        depth=2, hidden_size=width, intermediate_size=2 * width, num_heads=heads, in_channels=3, patch_size=4,
        spatial_merge_size=2, temporal_patch_size=2, window_size=32, fullatt_block_indexes=[1], out_hidden_size=32,
    )  # fmt: skip
    text = {**zoo_qwen.QWEN_TEXT}
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, **zoo_qwen.QWEN_IDS)
    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def added(model: Any, grid: tuple[int, int, int], config: DuetConfig) -> int:
    """Bytes that stage 1 adds to the peak of encoding one image or video of that patch grid."""
    grids, peaks = torch.tensor([grid]), []
    pixels = torch.zeros(int(grids.prod()), 96).normal_()
    for compressed in (False, True):
        handle = duet_vlm.apply(model, config) if compressed else None
        with torch.no_grad(), Live() as live:
            model.model.get_image_features(pixels, grids, return_dict=True)
        peaks.append(live.peak)
        if handle is not None:
            handle.remove()
    assert peaks[0] > pixels.nbytes  # the count sees the tower
    return peaks[1] - peaks[0]


def test_counting_sees_maps() -> None:
    with Live() as live:
        x = torch.zeros(256, 256)
        y = x @ x
        del y
        z = x + 1
    assert live.peak == 2 * x.nbytes and live.now == x.nbytes + z.nbytes


@pytest.mark.parametrize(("width", "heads"), [(80, 1), pytest.param(1280, 16, marks=pytest.mark.long, id="full width")])
def test_11520_patches_add_at_most_64_megabytes(width: int, heads: int) -> None:
    more = added(tower(width, heads), (1, 96, 120), DuetConfig(dominant=540, contextual=100))
    assert more <= 64 * MEGABYTE  # one map of these patches is 506 MB in float32, for each head


@pytest.mark.parametrize("frames", [64, pytest.param(512, marks=pytest.mark.long)])
def test_a_long_video_holds_one_frame_of_attention(frames: int) -> None:
    tokens, width = 256, 16
    more = added(tower(width, 1), (frames, 32, 32), DuetConfig(dominant=40, contextual=8))
    kept = frames * tokens * (1 + width) * 4  # a score and a key of every token, float32
    # decisions, merged copies of the features (32 wide), and one frame's weights
    assert more <= kept + 2 * frames * tokens * 32 * 4 + 1024 * 1024 * 4


def long_prompt(words: int) -> tuple[Any, dict[str, Any]]:
    """A LLaVA of 8 heads with 576 visual tokens, and a prompt of one image and so many words."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**{**tiny.VISION, "image_size": 96}),
        text_config=LlamaConfig(
            **{**tiny.TEXT, "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 8,
               "num_key_value_heads": 8, "max_position_embeddings": 16384}
        ),
        image_token_id=98, vision_feature_layer=-2, image_seq_length=576,
    )  # fmt: skip
    torch.manual_seed(0)
    ids = torch.cat([torch.full((1, 576), 98), torch.randint(3, 90, (1, words))], dim=1)
    batch = dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=torch.randn(1, 3, 96, 96))
    return LlavaForConditionalGeneration(config).eval(), batch


@pytest.mark.parametrize("words", [2000, pytest.param(8000, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "how", [dict(), dict(debias=True), dict(ranking="sparsevlm")], ids=["plain", "debias", "sparsevlm"]
)
def test_ranking_by_a_long_text_stays_within_twice_the_peak_of_stock(words: int, how: dict[str, Any]) -> None:
    model, batch = long_prompt(words)
    config = DuetConfig(drops=[Drop(2, 0.5)], query="all", **how)
    with torch.no_grad(), Live() as stock:
        model(**batch, logits_to_keep=1)
    with duet_vlm.apply(model, config), torch.no_grad(), Live() as compressed:
        model(**batch, logits_to_keep=1)
    assert compressed.peak <= 2 * stock.peak


def test_scores_hold_a_few_blocks_however_many_ask() -> None:
    heads, asked, tokens, width = 8, 2000, 3000, 8
    query, key = torch.randn(1, heads, asked, width), torch.randn(1, heads, tokens, width)
    places = Places(torch.arange(tokens - asked, tokens)[None], torch.arange(tokens)[None])
    with Live() as live:
        ranking.text_to_vision(query, key, places, Softmax(width**-0.5))
    assert live.peak <= 3 * 4 * block_size(query.device)  # one map of one head is 24 MB, all of them 192
    assert live.peak > 4 * block_size(query.device) / 2


@pytest.mark.parametrize("name", [*at_encoder(), "diverse"])
def test_every_method_merges_4096_tokens_without_a_map(name: str) -> None:
    """A map of these tokens is 64 MB in float32; PruMerge gathers 32 members for each token that it keeps."""
    tokens, width, kept = 4096, 256, 640
    x = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(0))
    encoded = Encoded(x[..., 0].sigmoid(), x[..., :64].contiguous(), x, (64, 64))
    config = DuetConfig(540, kept - 540, merging="duet" if name == "diverse" else name, diverse=name == "diverse")
    with Live() as live:
        merge(config, encoded).retained(encoded.features)
    assert live.peak <= 12 * MEGABYTE + 2 * x.nbytes


@pytest.mark.parametrize("name", [name for name in at_encoder() if STAGE1[name].whole_videos])
@pytest.mark.parametrize("frames", [64, pytest.param(512, marks=pytest.mark.long)])
def test_a_whole_video_is_looked_at_without_a_map(name: str, frames: int) -> None:
    """A map of the tokens of 64 frames is 256 MB in float32."""
    tokens, width = 128, 64
    x = torch.randn(1, frames * tokens, width, generator=torch.Generator().manual_seed(0))
    x[:, tokens:] = x[:, :-tokens] + 0.2 * x[:, tokens:]
    encoded = Encoded(x[..., 0].sigmoid(), x[..., :8].contiguous(), x, (8, 16), frames)
    with Live() as live:
        found = merge(DuetConfig(7, 3, merging=name), encoded)
        found.retained(encoded.features)
    assert found.places.shape == (1, 10 * frames)
    # a block of frames, their cosines, copies of it, and some numbers of every token
    assert live.peak <= 24 * MEGABYTE + 4 * x.nbytes
