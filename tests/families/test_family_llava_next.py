"""LLaVA-NeXT: a budget counts patches that are no padding, and every crop of a photo keeps its share of them."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import saved
import tiny
import torch
from exactness import TOLERANCE, kept
from oracle import masked_prefill
from PIL import Image
from transformers import AutoModelForImageTextToText

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.config.budget import tokens_per_layer
from duet_vlm.config.registry import at_encoder

SIDE, N = 6, 36
# (height, width) of an image -> rows and columns of tiles, and the rows and columns of their patches that stock
# leaves, worked out by hand: full tiles; padding above and below; left and right; half of each tile; tiles that are
# padding alone; odd sides
SIZES = {
    (24, 48): ((1, 2), range(6), range(12)),
    (10, 48): ((1, 2), range(2, 4), range(12)),
    (48, 13): ((2, 1), range(12), range(1, 5)),
    (24, 24): ((1, 2), range(6), range(3, 9)),
    (3, 48): ((1, 2), range(0), range(12)),
    (17, 31): ((1, 2), range(6), range(1, 11)),
}
sizes = pytest.mark.parametrize("size", SIZES)


def no_padding(size: tuple[int, int]) -> list[list[int]]:
    """Of each crop, the base crop first, the patches that are left."""
    grid, rows, columns = SIZES[size]
    found: list[list[int]] = [list(range(N)), *([] for _ in range(grid[0] * grid[1]))]
    for row in rows:
        for column in columns:
            found[1 + row // SIDE * grid[1] + column // SIDE].append(row % SIDE * SIDE + column % SIDE)
    return found


def prompts(*listed: tuple[int, int]) -> dict[str, Any]:
    """One image in each row."""
    generator, rows = torch.Generator().manual_seed(4), []
    for i, size in enumerate(listed):
        length = sum(map(len, no_padding(size))) + len(SIZES[size][1])
        rows.append(torch.tensor([5, 6, *[tiny.IMAGE] * length, *([9, 12, 7][: 3 - i % 2])]))
    batch = tiny.stack(rows, "left")
    batch["pixel_values"] = torch.randn(len(listed), 3, 3, 24, 24, generator=generator)
    batch["image_sizes"] = torch.tensor(listed)
    return batch


def traced(config: DuetConfig, *listed: tuple[int, int]) -> Any:
    model = tiny.build("llava_next")
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()) as handle, torch.no_grad():
        model(**prompts(*listed))
        return handle.trace


@sizes
@pytest.mark.parametrize("method", sorted(at_encoder()))
@pytest.mark.parametrize("keep", [0.08, 0.3, 0.61])
def test_the_budget_is_met_whatever_the_shape_of_a_photo(size: tuple[int, int], method: str, keep: float) -> None:
    """Of the patches that are no padding, within half a token at the entrance; and none of the others is retained."""
    model = tiny.build("llava_next")
    config = DuetConfig.preset(f"{method}+none", model=model, keep=keep)
    trace, places = traced(config, size), no_padding(size)
    valid = sum(map(len, places))
    entering = trace.samples[0].tokens_per_layer[0]
    per_crop = tokens_per_layer(config, N, tiny.LAYERS)[0]
    assert abs(entering - per_crop * valid / N) <= 0.5 and abs(per_crop - keep * N) <= 0.5
    assert len(trace.images) == len(places)
    for image, left in zip(trace.images, places, strict=True):
        retained = [*image.dominant, *image.anchors]
        merged = [place for cluster in image.clusters for place in cluster]
        assert set(retained + merged) <= set(left) and len(set(retained)) == len(retained)
        assert abs(len(retained) - per_crop * len(left) / N) < 1
    assert sum(len(image.dominant) + len(image.anchors) for image in trace.images) == entering


@sizes
def test_what_is_chosen_is_the_method_on_the_patches_that_are_left(size: tuple[int, int]) -> None:
    """Slow loops over the rectangle, with the model's own attention statistics of the whole crop."""
    model, batch, config = tiny.build("llava_next"), prompts(size), DuetConfig(dominant=9, contextual=3)
    layer, seen = model.model.vision_tower.encoder.layers[-2], []
    layer.self_attn.register_forward_pre_hook(
        lambda m, a, k: seen.append((a or (k["hidden_states"],))[0]), with_kwargs=True
    )
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()) as handle, torch.no_grad():
        model(**batch)
        trace = handle.trace
    assert trace is not None
    attention, hidden = layer.self_attn, seen[0]
    with torch.no_grad():
        query, key = (getattr(attention, f"{x}_proj")(hidden).unflatten(2, (4, 8)).transpose(1, 2) for x in "qk")
        shares = (query[:, :, :1] @ key.transpose(2, 3) * attention.scale).softmax(-1)[:, :, 0, 1:].sum(1)
        metric = key[:, :, 1:].mean(1)
    for crop, (image, left) in enumerate(zip(trace.images, no_padding(size), strict=True)):
        assert torch.allclose(torch.tensor(image.scores), shares[crop], atol=1e-5)
        k1, k2 = len(image.dominant), len(image.anchors)
        if not left:
            assert (k1, k2) == (0, 0)
            continue
        expected = oracle.stage_1([image.scores[p] for p in left], metric[crop, left].tolist(), k1, k2, 4)
        assert image.dominant == [left[i] for i in expected["dominant"]]
        assert image.anchors == [left[i] for i in expected["anchors"]]
        found = [sorted(cluster) for cluster in image.clusters]
        assert found == [sorted(left[i] for i in cluster) for cluster in expected["clusters"]]


@pytest.mark.parametrize("name", ["both stages", "every token", "merged"])
def test_photos_of_all_shapes_in_one_batch(name: str) -> None:
    """Against the masking oracle, and each row alone."""
    config = {
        "both stages": DuetConfig(dominant=9, contextual=3, drops=[Drop(2, 0.5), Drop(4, 0.25)]),
        "every token": DuetConfig(dominant=36, contextual=0),
        "merged": DuetConfig(dominant=0.2, contextual=0.1, merging="prumerge", combine="mean"),
    }[name]
    model, batch = tiny.build("llava_next"), prompts(*SIZES)
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()) as handle, torch.no_grad():
        got = model(**batch).logits[:, -1]
        by_layer = kept(handle, batch)
        hidden, _ = masked_prefill(model, batch, by_layer, renumber=True)
        assert (got - model.lm_head(hidden[:, -1])).abs().max() < TOLERANCE
        for row in range(len(SIZES)):
            alone = model(**tiny.single(batch, row)).logits[0, -1]
            assert (got[row] - alone).abs().max() < TOLERANCE


def test_what_a_photo_keeps_through_the_processor(tmp_path: Any) -> None:
    """The house of 640 x 480 and the others that kept 21 to 29% at `keep=0.3`."""
    model = AutoModelForImageTextToText.from_pretrained(saved.save(tmp_path, "llava_next"))
    processor = saved.processor("llava_next")
    config = DuetConfig.preset("duet+none", model=model, keep=0.3)
    for size in ((640, 480), (900, 300), (360, 720), (480, 480), (224, 112)):
        inputs = processor(images=Image.new("RGB", size, "red"), text="<image> what is this ?", return_tensors="pt")
        whole = int((inputs["input_ids"] == model.config.image_token_id).sum())
        with duet_vlm.apply(model, config, tokenizer=processor) as handle, torch.no_grad():
            model(**inputs)
            entering = handle.trace.samples[0].tokens_per_layer[0]
        # 14 rows of patches a crop: 14 to 28 row ends
        assert 0.3 * (whole - 28) - 0.5 <= entering <= 0.3 * (whole - 1) + 0.5
        assert 0.28 < entering / whole <= 0.3
