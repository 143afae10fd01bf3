"""Stage 1 methods that are shown whole videos, in the families that hand them over: what they see, keep and count."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from torch import Tensor

import duet_vlm
from duet_vlm import DuetConfig, DuetError
from duet_vlm.config.registry import STAGE1
from duet_vlm.families import audience
from duet_vlm.stage1 import Encoded, selected

ROWS: zoo.Rows = ((5, "v", 6), (2, "v", 3, "v", 6))
WHOLE = [name for name, row in STAGE1.items() if row.whole_videos]
FAMILIES = [
    "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen2_5_omni_thinker", "glm4v_video",
    "llava_onevision", "video_llama_3",
]  # fmt: skip
ONE_BY_ONE = ["video_llava", "llava_next_video", "internvl", "smolvlm", "gemma3"]

family = pytest.mark.parametrize("family", FAMILIES)


def batch_of(family: str) -> dict[str, Any]:
    kind = "i" if zoo.FAMILIES[family].modality == "video" else "v"
    return zoo.inputs(family, tuple(tuple(kind if part == "v" else part for part in row) for row in ROWS))


def grids(batch: dict[str, Any], family: str) -> list[tuple[int, int, int]]:
    """Frames, and rows and columns of visual tokens, of every video."""
    if family == "llava_onevision":
        return [(count, 3, 3) for count in [batch["pixel_values_videos"].shape[1]] * len(batch["pixel_values_videos"])]
    return [(t, h // 2, w // 2) for t, h, w in batch["video_grid_thw"].tolist()]


def encode(model: Any, batch: dict[str, Any]) -> Any:
    names = ("pixel_values_videos", "video_grid_thw", "video_merge_sizes")
    return model.model.get_video_features(**{k: batch[k] for k in names if k in batch}, return_dict=True)


@family
@pytest.mark.parametrize("name", WHOLE)
@torch.no_grad()
def test_a_video_keeps_what_the_method_keeps_of_all_its_frames(family: str, name: str) -> None:
    """By the stock model's own features, at their places, and as many in all as frame by frame."""
    model, batch = zoo.build(family), batch_of(family)
    stock = encode(model, batch).pooler_output
    dominant, contextual = 3, 2
    with duet_vlm.apply(model, DuetConfig(dominant, contextual, merging=name)) as handle:
        with audience.for_engine():
            outcome = encode(model, batch).duet
        model(**batch)
        trace = handle.trace
    assert trace is not None
    uneven, kept = False, [len(sample.drops[0].kept) for sample in trace.samples]
    shapes = grids(batch, family)
    assert kept == [5 * shapes[0][0], 5 * (shapes[1][0] + shapes[2][0])]
    for video, (frames, rows, columns) in enumerate(shapes):
        tokens = frames * rows * columns
        x, scores = stock[video][None, :tokens], torch.tensor([trace.images[video].scores])
        found = STAGE1[name].load()(
            Encoded(scores, x, x, (rows, columns), frames), frames * dominant, frames * contextual, 4
        )
        places = found.places[0].tolist()
        assert len(trace.images) == 3 and scores.shape == (1, tokens) and len(places) == frames * 5
        image = trace.images[video]
        assert sorted([*image.dominant, *image.anchors]) == sorted(places)
        features, sizes = outcome.features[video], outcome.sizes[video]
        assert (sizes > 0).nonzero()[:, 0].tolist() == sorted(places) and not features[sizes == 0].any()
        expected = torch.zeros_like(features).index_copy(0, found.places[0], found.retained(x)[0])
        torch.testing.assert_close(features, expected)
        counts = [sum(place // (rows * columns) == frame for place in places) for frame in range(frames)]
        uneven |= len(set(counts)) > 1
    assert uneven or name == "flashvid"  # a share of which is even


@family
@torch.no_grad()
def test_a_method_of_ones_own_is_shown_all_frames(family: str, own_methods: None) -> None:
    seen: list[tuple[int, tuple[int, int] | None, Tensor]] = []

    def last(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Any:
        seen.append((encoded.frames, encoded.grid, encoded.features[0]))
        places = torch.arange(encoded.tokens - dominant - contextual, encoded.tokens)
        return selected(encoded, places.expand(len(encoded.scores), -1))

    duet_vlm.register_stage1("last", last, whole_videos=True, discards=True)
    model, batch = zoo.build(family), batch_of(family)
    stock, shapes = encode(model, batch).pooler_output, grids(batch, family)
    with duet_vlm.apply(model, DuetConfig(2, merging="last")):
        sizes = encode(model, batch).duet.sizes
    for video, (frames, rows, columns) in enumerate(shapes):
        shown, grid, features = seen[video]
        assert (shown, grid) == (frames, (rows, columns))
        torch.testing.assert_close(features, stock[video][: len(features)])
        kept = sizes[video][: frames * rows * columns].nonzero()[:, 0].tolist()
        assert kept == list(range(frames * (rows * columns - 2), frames * rows * columns))
    with pytest.raises(DuetError, match="whole_videos 1 must be True or False"):
        duet_vlm.register_stage1("first", last, whole_videos=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ONE_BY_ONE)
@pytest.mark.parametrize("name", WHOLE)
def test_frames_that_come_one_by_one_are_refused(family: str, name: str) -> None:
    model = zoo.build(family)
    for attempt in (
        lambda: duet_vlm.apply(model, DuetConfig(5, merging=name), tokenizer=tiny.Words()),
        lambda: DuetConfig.preset(name, model=model, keep=0.3),
    ):
        with pytest.raises(DuetError, match=f"merging '{name}' is shown all frames of a video together") as error:
            attempt()
        assert str(error.value).endswith(".") and len(str(error.value)) < 260
    assert not hasattr(model.config, "duet")


@pytest.mark.parametrize("name", WHOLE)
def test_a_budget_is_that_of_every_frame(name: str) -> None:
    config = DuetConfig.preset(name, model=zoo.build("qwen2_5_vl"), keep=0.4)
    assert config.merging == name and float(config.dominant or 0) + config.contextual == pytest.approx(0.4)
    assert config.contextual == pytest.approx(0.12 if name == "flashvid" else 0)
