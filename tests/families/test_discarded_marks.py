"""What stage 1 removes is marked beside the features, never in them: every family, every way features are made."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate
from matrix import VIDEO_ROWS, apply, rows_of, seeing, settings

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError
from duet_vlm.families.audience import for_engine

TILES = (
    "pixel_values",
    "pixel_values_videos",
    "pixel_values_images",
    "image_grid_thw",
    "image_sizes",
    "pixel_attention_mask",
    "target_sizes",
    "spatial_shapes",
    "high_res_pixel_values",
)


def encoded(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """What a user gets who encodes the images of a batch alone, or its videos where it has no images."""
    if "pixel_values_videos" in batch:
        return model.model.get_video_features(batch["pixel_values_videos"], batch["video_grid_thw"], return_dict=True)
    names = (*TILES, "image_merge_sizes", "image_position_ids")
    return model.base_model.get_image_features(**{k: batch[k] for k in names if k in batch}, return_dict=True)


def features(output: Any) -> torch.Tensor:
    # Llama 4's encoder hands over nothing pooled
    found = output.last_hidden_state if output.pooler_output is None else output.pooler_output
    return torch.cat([f.flatten(0, -2) for f in found])


def image_batch(family: str, seed: int = 1) -> dict[str, Any]:
    return zoo.inputs(family, ((5, "i", 9), (2, "i", 3, "i", 6)), seed=seed)


def without_pixels(batch: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in batch.items() if k not in TILES or k in ("image_grid_thw", "target_sizes")}


@seeing
@torch.no_grad()
def test_whoever_asks_for_features_gets_those_of_the_stock_model(family: str) -> None:
    model, batch = zoo.build(family), image_batch(family)
    stock = features(encoded(model, batch))
    with apply(model, family):
        assert torch.equal(features(encoded(model, batch)), stock)
        generate(model, batch, 2)
        assert torch.equal(features(encoded(model, batch)), stock)
    assert torch.equal(features(encoded(model, batch)), stock)


@seeing
@torch.no_grad()
def test_features_encoded_alone_are_compressed_like_pixels_as_often_as_wanted(family: str) -> None:
    model, batch = zoo.build(family), image_batch(family)
    with apply(model, family) as handle:
        expected, kept = model(**batch).logits, [s.tokens_per_layer for s in handle.trace.samples]
        once = encoded(model, batch)
        before = features(once).clone()
        for _ in range(2):
            got = model(**without_pixels(batch), mm_encoder_outputs={zoo.FAMILIES[family].modality: once}).logits
            close(got, expected)
            assert [s.tokens_per_layer for s in handle.trace.samples] == kept
        assert torch.equal(features(once), before)
    stock = model(**batch).logits
    close(model(**without_pixels(batch), mm_encoder_outputs={zoo.FAMILIES[family].modality: once}).logits, stock)


@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen3_vl", "internvl"])
@torch.no_grad()
def test_features_encoded_before_apply_or_under_other_settings_are_refused(family: str) -> None:
    model, batch = zoo.build(family), image_batch(family)
    early = encoded(model, batch)
    with apply(model, family) as handle:
        with pytest.raises(DuetError, match=r"encoded without stage 1.*pass the pixel values"):
            model(**without_pixels(batch), mm_encoder_outputs={"image": early})
        now = encoded(model, batch)
        handle.use(DuetConfig(dominant=9, contextual=2))
        with pytest.raises(DuetError, match="encoded before these settings"):
            model(**without_pixels(batch), mm_encoder_outputs={"image": now})
        handle.use(DuetConfig(drops=[Drop(2, 0.5)], query="last"))
        expected = model(**batch).logits
        close(model(**without_pixels(batch), mm_encoder_outputs={"image": early}).logits, expected)
        close(model(**without_pixels(batch), mm_encoder_outputs={"image": now}).logits, expected)


@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen2_5_vl", "gemma3", "smolvlm"])
@torch.no_grad()
def test_features_put_into_embeddings_give_what_stock_gives(family: str) -> None:
    model, batch = zoo.build(family), image_batch(family)

    def embedded() -> dict[str, Any]:
        vectors = model.get_input_embeddings()(batch["input_ids"]).clone()
        vectors[batch["input_ids"] == zoo.IMAGE] = features(encoded(model, batch)).to(vectors)
        return {"inputs_embeds": vectors, "attention_mask": batch["attention_mask"]}

    expected = zoo.decoder(model)(**embedded()).last_hidden_state
    with apply(model, family):
        got = zoo.decoder(model)(**embedded()).last_hidden_state
    assert torch.equal(got, expected)


@seeing
def test_tokens_that_are_zero_are_tokens(family: str) -> None:
    """A projector that starts at zero: every visual token enters, and the projector gets a gradient."""
    model, batch = zoo.build(family), image_batch(family)
    with apply(model, family) as handle, torch.no_grad():
        model(**batch)
        expected = [s.tokens_per_layer for s in handle.trace.samples]

    def zeroed(module: Any, args: Any, output: Any) -> Any:
        return [each * 0 for each in output] if isinstance(output, list) else output * 0

    core, tower = model.base_model, None
    for name in ("multi_modal_projector", "connector", "projector", "visual_embeddings_table", "merger", "aligner"):
        tower = getattr(core, name, tower)
    if hasattr(core, "embed_vision"):
        tower = getattr(core.embed_vision, "multimodal_embedder", core.embed_vision)
    hook = (tower if tower is not None else core.visual.merger).register_forward_hook(zeroed)
    with apply(model, family) as handle:
        logits = model(**batch).logits
        assert [s.tokens_per_layer[0] for s in handle.trace.samples] == [counts[0] for counts in expected]
        if family not in ("llava_onevision", "llava_next", "llava_next_video"):  # there newlines are visual tokens too
            assert [s.tokens_per_layer for s in handle.trace.samples] == expected
        assert logits.isfinite().all()
    hook.remove()


def test_a_projector_that_starts_at_zero_learns() -> None:
    model, batch = tiny.build(), tiny.inputs()
    last = model.model.multi_modal_projector.linear_2
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    labels = batch["input_ids"].clone()
    labels[:, :-2] = -100
    duet_vlm.apply(model, settings("llava"), tokenizer=tiny.Words())
    model.train()
    model(**batch, labels=labels).loss.backward()
    assert last.weight.grad.abs().max() > 0


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@torch.no_grad()
def test_a_black_image_keeps_its_tokens(family: str) -> None:
    model, batch = zoo.build(family), image_batch(family)
    for name, parameter in model.model.visual.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
    with apply(model, family) as handle:
        model(**batch)
        expected = [s.tokens_per_layer for s in handle.trace.samples]
        model(**batch | {"pixel_values": torch.zeros_like(batch["pixel_values"])})
        assert [s.tokens_per_layer for s in handle.trace.samples] == expected


@seeing
@torch.no_grad()
def test_pixels_by_position_are_pixels(family: str) -> None:
    model, batch = zoo.build(family), image_batch(family)
    names = list(__import__("inspect").signature(type(model.base_model).forward).parameters)[1:]
    with apply(model, family):
        expected = model.base_model(**batch)[0]
        last = max(names.index(k) for k in batch if k.startswith("pixel_values"))
        positional = [batch.get(name) for name in names[: last + 1]]
        others = {k: v for k, v in batch.items() if k not in names[: last + 1]}
        assert torch.equal(model.base_model(*positional, **others)[0], expected)


@pytest.mark.parametrize("family", ["video_llava", "llava_onevision", "qwen2_5_vl"])
@torch.no_grad()
def test_videos_encoded_alone_are_stock_and_compressed_alike(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, VIDEO_ROWS[:1])
    names = ("pixel_values_videos", "video_grid_thw")
    ask = {k: batch[k] for k in names if k in batch} | {"return_dict": True}
    stock = features(model.model.get_video_features(**ask))
    with apply(model, family):
        expected = model(**batch).logits
        once = model.model.get_video_features(**ask)
        assert torch.equal(features(once), stock)
        rest = {k: v for k, v in batch.items() if k != "pixel_values_videos"}
        close(model(**rest, mm_encoder_outputs={"video": once}).logits, expected)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "llava_onevision"])
@torch.no_grad()
def test_features_of_one_call_serve_several_sequences_and_beams(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    images = zoo.inputs(family, ((5, "i", 9), (12,), (2, "i", 3, "i", 6)))
    with apply(model, family):
        for one in (batch, images):
            expected = generate(model, one, 4, num_beams=3).sequences
            assert expected.shape[0] == 3
        once = encoded(model, images)
        got = generate(model, without_pixels(images) | {"mm_encoder_outputs": {"image": once}}, 4, num_beams=3)
        assert torch.equal(got.sequences, expected)


@torch.no_grad()
def test_parts_of_features_are_refused() -> None:
    model, batch = tiny.build(), tiny.inputs(rows=((5, 9), (2, 3, 6)))
    with duet_vlm.apply(model, settings("llava"), tokenizer=tiny.Words()):
        output = encoded(model, batch)
        output.pooler_output = list(output.pooler_output) + list(output.pooler_output[:1])
        extended = {**batch, "input_ids": torch.cat([batch["input_ids"]] * 2)[:3]}
        rest = {k: v for k, v in extended.items() if k not in ("pixel_values", "attention_mask")}
        rest["input_ids"] = torch.cat([batch["input_ids"], batch["input_ids"][:1]])
        with pytest.raises(DuetError, match="4 encoded images came with a prompt where 3 were encoded"):
            model(**rest, mm_encoder_outputs={"image": output})


@torch.no_grad()
def test_what_a_call_says_of_layers_and_strategies_wins_or_is_refused() -> None:
    model, batch = tiny.build(), tiny.inputs()
    stock = model.model.get_image_features(batch["pixel_values"], vision_feature_layer=-1, return_dict=True)
    with duet_vlm.apply(model, settings("llava"), tokenizer=tiny.Words()):
        got = model.model.get_image_features(batch["pixel_values"], vision_feature_layer=-1, return_dict=True)
        assert torch.equal(features(got), features(stock))
        for asked in (dict(vision_feature_layer=-1), dict(vision_feature_select_strategy="full")):
            with pytest.raises(DuetError, match=f"{next(iter(asked))}=.* came with a call"):
                model(**batch, **asked)
        with for_engine(), pytest.raises(DuetError, match="vision_feature_layer=-1 came with a call"):
            model.model.get_image_features(batch["pixel_values"], -1)  # by position
        model(**batch, vision_feature_layer=-2)  # what the config says anyway
