"""GLM-V: which frames of a video are shown, images and videos in one prompt, and where its four patches meet."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zoo
import zoo_glm
import zoo_members
from exactness import close, generate, kept
from matrix import ROWS, apply, settings
from oracle import masked_stock

from duet_vlm.config.decoder_shape import DecoderShape
from duet_vlm.families.glm4v import Glm4vVideoProcessor, Glm46VVideoProcessor
from duet_vlm.stage1 import Encoded, merge


def stock_frames(name: str, total: int, rate: float, **own: Any) -> list[int]:
    """What the stock class shows; its file cannot be imported without torchvision, so its method is taken out."""
    package = importlib.util.find_spec(f"transformers.models.{name}")
    assert package is not None and package.origin is not None
    source = ast.parse((Path(package.origin).parent / f"video_processing_{name}.py").read_text())
    method = next(node for node in ast.walk(source) if getattr(node, "name", "") == "sample_frames")
    names: dict[str, Any] = {"np": np, "math": __import__("math"), "VideoMetadata": Any}
    exec(compile(ast.Module([method], []), name, "exec"), names)
    told = SimpleNamespace(total_num_frames=total, fps=rate, duration=total / rate)
    found: list[int] = names["sample_frames"](SimpleNamespace(temporal_patch_size=2, **own), told).tolist()
    return found


LENGTHS = [(1, 24.0), (7, 10.0), (120, 30.0), (100, 29.97), (45, 3.0), (900, 30.0), (1000, 25.0), (2500, 7.0)]
LONG = [(9000, 30.0), (9030, 30.0), (700, 2.0), (1000, 3.0), (100_000, 24.0), (500, 1.0)]


@pytest.mark.parametrize(("total", "rate"), [*LENGTHS, *LONG])
def test_the_frames_are_those_of_stock(total: int, rate: float) -> None:
    ours = Glm4vVideoProcessor.rule(Glm4vVideoProcessor())
    expected = stock_frames("glm4v", total, rate, fps=2, max_duration=300)
    assert ours(total, rate) == sorted(set(expected))  # stock repeats the last of an odd number
    ours, expected = Glm46VVideoProcessor.rule(Glm46VVideoProcessor()), stock_frames("glm46v", total, rate)
    assert ours(total, rate) == sorted(set(expected))


def test_settings_of_a_models_files_count() -> None:
    made = Glm4vVideoProcessor(fps=4, max_duration=10)
    for total in (90, 500):
        expected = stock_frames("glm4v", total, 30.0, fps=4, max_duration=10)
        assert Glm4vVideoProcessor.rule(made)(total, 30.0) == sorted(set(expected))
    assert Glm46VVideoProcessor.rule(made).exactly(3)(9, 3.0) == [0, 3, 6]


@pytest.fixture(params=zoo_glm.KINDS)
def videos(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A row of the zoo whose pictures are videos, for each of the model types; "glm4v_video" runs everywhere else."""
    row = f"{request.param}_video"
    monkeypatch.setitem(zoo.FAMILIES, row, zoo_members.glm_member(request.param, "video"))
    return row


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_videos_against_the_masking_oracle_and_one_by_one(videos: str, attention: str) -> None:
    model, batch = zoo.build(videos, attention), zoo.inputs(videos, ROWS)
    handle = apply(model, videos)
    out = generate(model, batch)
    length, new = batch["input_ids"].shape[1], out.sequences[:, batch["input_ids"].shape[1] : -1]
    hidden, there = masked_stock(model, zoo.extended(videos, batch, new), kept(handle, batch, new.shape[1]), False)
    close(torch.stack(out.logits, 1), model.lm_head(hidden)[:, length - 1 :].detach())
    with torch.no_grad():
        prefill = model(**batch).logits
    close(prefill[there[:, :length]], model.lm_head(hidden)[:, :length][there[:, :length]].detach())
    for row, one in enumerate(ROWS):
        alone = generate(model, zoo.inputs(videos, (one,), first=row))
        close(torch.stack(out.logits, 1)[row], torch.stack(alone.logits, 1)[0])


@pytest.mark.parametrize("family", ["glm4v", "glm46v"])
def test_images_and_videos_in_one_prompt_are_refused_as_by_stock(family: str) -> None:
    model = zoo.build(family)
    images, videos = zoo.inputs(family, ((5, "i", 9),)), zoo.inputs("glm4v_video", ((3, "i", 6),))
    both = {k: torch.cat([images[k], videos[k]], 1) for k in ("input_ids", "attention_mask", "mm_token_type_ids")}
    both = {**images, **videos, **both}
    with pytest.raises(ValueError, match="Image features and image tokens do not match"), torch.no_grad():
        model(**both)
    with apply(model, family), pytest.raises(ValueError, match="features and image tokens do not match"):
        model(**both)


def test_what_each_frame_merges(videos: str) -> None:
    """Scores and keys as the tower's last attention makes them, written out; four patches of a token in a mean."""
    model, batch = zoo.build(videos, "eager"), zoo.inputs(videos, ((5, "i", 9),))
    seen: dict[str, Any] = {}
    attention = model.model.visual.blocks[-1].attn
    attention.register_forward_pre_hook(lambda m, a, k: seen.update(k, hidden=a[0] if a else None), with_kwargs=True)
    with apply(model, videos) as handle, torch.no_grad():
        model(**batch)
    assert handle.trace is not None
    hidden = seen["hidden_states"] if seen.get("hidden") is None else seen["hidden"]
    with torch.no_grad():
        query, key, _ = attention.qkv(hidden).reshape(len(hidden), 3, 4, 8).unbind(1)
        if videos == "glm_ocr_video":
            query, key = attention.q_norm(query), attention.k_norm(key)
    cos, sin = (table[:, None] for table in seen["position_embeddings"])
    query, key = (x * cos + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin for x in (query, key))
    frames, rows, columns = batch["video_grid_thw"][0].tolist()
    assert len(handle.trace.images) == frames
    for number, image in enumerate(handle.trace.images):
        part = slice(number * rows * columns, (number + 1) * rows * columns)
        weights = torch.einsum("qhd,khd->hqk", query[part], key[part]).mul(8**-0.5).softmax(-1)
        scores, keys = weights.sum(1).mean(0).unflatten(0, (-1, 4)).mean(1), key[part].mean(1).unflatten(0, (-1, 4))
        encoded = Encoded(scores[None], keys.mean(1)[None], keys.mean(1)[None], (rows // 2, columns // 2))
        expected = merge(settings(videos), encoded, dynamic=True)
        places = sorted([*image.dominant, *image.anchors])
        assert places == sorted(expected.places[0].tolist())


def test_what_a_budget_counts_of_experts() -> None:
    dense, experts, sparse = (zoo.build(name).config for name in ("glm4v", "glm4v_moe", "qwen3_vl_moe"))
    width = dense.get_text_config().hidden_size
    assert DecoderShape.of(dense).feed_forward == 3 * width * 64
    # 5 layers: one of 64, and four with a router of 4 whose tokens pass 2 experts and the shared one, of 32 each
    assert DecoderShape.of(experts).feed_forward == round(width * (3 * 64 + 4 * (3 * 3 * 32 + 4)) / 5)
    text = sparse.get_text_config()
    assert DecoderShape.of(sparse).feed_forward == text.hidden_size * (3 * 2 * 32 + text.num_experts)


def test_several_images_in_a_row_are_repeated_rightly() -> None:
    """Stock repeats A, B as A, A, B, B for three sequences of a row; stage 1 knows whose they are."""
    model, batch = zoo.build("glm4v"), zoo.inputs("glm4v", ((2, "i", 3, "i", 6),), seed=3)
    assert batch["image_grid_thw"].prod(1).unique().numel() == 2  # unlike images
    ask: dict[str, Any] = dict(max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
    with apply(model, "glm4v") as handle:
        one = model.generate(**batch, **ask).logits[0]
        kept = [drop.kept for drop in handle.trace.samples[0].drops] if handle.trace else []
        three = model.generate(**batch, **ask, num_beams=3, num_return_sequences=3).logits[0]
        torch.testing.assert_close(three[:1], one, atol=2e-5, rtol=2e-5)
        assert handle.trace is not None
        assert all([drop.kept for drop in sample.drops] == kept for sample in handle.trace.samples)
