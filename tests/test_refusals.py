"""Bad input: one clear sentence that names the value, before anything moves, and nothing left behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import StaticCache

import duet_vlm
from duet_vlm import Drop, DuetConfig

SETTINGS: list[tuple[dict[str, Any], str]] = [
    (dict(dominant=0), "dominant 0 must be an int of at least 1"),
    (dict(dominant=1.5), "dominant 1.5 is a fraction and must be in"),
    (dict(dominant=-0.5), "dominant -0.5 is a fraction"),
    (dict(dominant=True), "dominant True must be an int"),
    (dict(dominant=5, contextual=0.0), "contextual 0.0 is a fraction"),
    (dict(dominant=5, contextual=-1), "contextual -1 must be"),
    (dict(contextual=4), "contextual 4 needs stage 1"),
    (dict(dominant=5, cluster_width=0), "cluster_width 0 must be a whole number of at least 1"),
    (dict(drops=[(3, 0.5)]), "is no drop: write Drop"),
    (dict(drops=[Drop(2, 0.5), Drop(2, 0.25)]), "drop layer 2 is given twice"),
    (dict(drops=[Drop(2, 0.25), Drop(4, 0.5)]), "keep ratios cannot grow, but layer 4 keeps 0.5"),
    (dict(drops=[Drop(2, 0.5), Drop(4, 0.25, rank_at=2)]), "cannot rank at layer 2"),
    (dict(query="nouns"), "query 'nouns' is unknown: choose one of salient, all, last"),
    (dict(positions="middle"), "positions 'middle' is unknown: choose one of auto, renumber, keep"),
    (dict(merging="tome"), "merging 'tome' is unknown"),
]


def one_sentence(error: Any) -> None:
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 260


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=[m for _, m in SETTINGS])
def test_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        DuetConfig(**settings)
    one_sentence(error)


@pytest.mark.parametrize("layer", [0, -1, 2.0, True])
def test_drop_layer(layer: Any) -> None:
    with pytest.raises(ValueError, match=f"drop layer {layer!r} is not possible") as error:
        Drop(layer, 0.5)
    one_sentence(error)


@pytest.mark.parametrize("keep", [-0.1, 1.1, "half"])
def test_keep_ratio(keep: Any) -> None:
    with pytest.raises(ValueError, match=f"keep ratio {keep!r} at drop layer 3") as error:
        Drop(3, keep)
    one_sentence(error)


def test_rank_at() -> None:
    with pytest.raises(ValueError, match="rank_at 4 must be a layer from 0 to the drop layer 3"):
        Drop(3, 0.5, rank_at=4)


APPLY: list[tuple[dict[str, Any], str]] = [
    (dict(dominant=30, contextual=7), "dominant 30 . contextual 7 = 37 is more than the 36 visual tokens"),
    (dict(dominant=0.9, contextual=0.5), "is more than the 36"),
    (dict(dominant=1), "keeps no patch besides CLS"),
    (dict(drops=[Drop(5, 0.5)], query="last"), "drop layer 5 is not possible: this model has 5 decoder layers"),
    (dict(drops=[Drop(2, 0.5)]), "query 'salient' needs the words of the question"),
    (dict(drops=[Drop(2, 0.5)], language="tlh"), "tlh"),
]


@pytest.mark.parametrize(("settings", "message"), APPLY, ids=[m for _, m in APPLY])
def test_settings_that_do_not_fit_the_model(settings: dict[str, Any], message: str) -> None:
    model = tiny.build()
    before = copy.deepcopy(model.config.to_dict())
    with pytest.raises(ValueError, match=message) as error:
        duet_vlm.apply(model, DuetConfig(**settings), tokenizer=tiny.Words() if "language" in settings else None)
    one_sentence(error)
    assert model.config.to_dict() == before
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_salient_needs_no_tokenizer_where_nothing_is_ranked() -> None:
    with duet_vlm.apply(tiny.build(), DuetConfig(dominant=9, drops=[Drop(4, 0.0)])) as handle:
        assert handle.config.query == "salient"


def test_second_apply_and_missing_config() -> None:
    model, batch = tiny.build(), tiny.inputs()
    with pytest.raises(ValueError, match="there is no config"):
        duet_vlm.apply(model)
    first = duet_vlm.apply(model, DuetConfig(dominant=9))
    before = model(**batch).logits
    with pytest.raises(ValueError, match="compressed already") as error:
        duet_vlm.apply(model, DuetConfig(dominant=5))
    one_sentence(error)
    assert torch.equal(model(**batch).logits, before) and model.config.duet == first.config.to_dict()


def test_unsupported_models() -> None:
    with pytest.raises(ValueError, match="'llama' are not supported: duet-vlm compresses llava") as error:
        duet_vlm.apply(LlamaForCausalLM(LlamaConfig(**tiny.TEXT)), DuetConfig(dominant=9))
    one_sentence(error)
    model = tiny.build()
    model.config.vision_config.model_type = "siglip_vision_model"
    with pytest.raises(ValueError, match="needs a vision tower with a CLS token, and 'siglip_vision_model'"):
        duet_vlm.apply(model, DuetConfig(dominant=9))
    model.config.vision_config.model_type = "clip_vision_model"
    model.config.vision_feature_select_strategy = "full"
    with pytest.raises(ValueError, match="vision_feature_select_strategy 'default'"):
        duet_vlm.apply(model, DuetConfig(dominant=9))


PRESETS: list[tuple[dict[str, Any], str]] = [
    (dict(name="tome", tokens=64), "method 'tome' is unknown: choose one of duet, duet-plus, visionzip"),
    (dict(name="duet"), "give the budget once"),
    (dict(name="duet", tokens=9, keep=0.5), "give the budget once"),
    (dict(name="duet", keep=1.5), "keep 1.5 must be a fraction"),
    (dict(name="duet", tokens=36), "duet cannot meet a budget of 36 tokens here"),
    (dict(name="visionzip", tokens=0.5), "visionzip cannot meet a budget of 0.5 tokens here"),
    (dict(name="pyramiddrop", tokens=2), "pyramiddrop cannot meet"),
    (dict(name="fastv", tokens=400), "fastv cannot meet"),
]


@pytest.mark.parametrize(("request_", "message"), PRESETS, ids=[m for _, m in PRESETS])
def test_presets(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        DuetConfig.preset(request_.pop("name"), model=tiny.build(), **request_)
    one_sentence(error)


def test_preset_needs_a_model_and_knows_its_family() -> None:
    with pytest.raises(ValueError, match="preset 'duet' needs model="):
        DuetConfig.preset("duet", tokens=64)
    with pytest.raises(ValueError, match="models of type 'llama' are not supported"):
        DuetConfig.preset("duet", tokens=64, model=LlamaConfig())


@pytest.mark.parametrize("cache", ["static", "quantized"])
def test_caches_that_cannot_be_pruned(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.cache_utils import BaseQuantizedLayer, DynamicCache

    model, batch = tiny.build(), tiny.inputs()
    if cache == "static":
        held: Any = StaticCache(config=model.config.get_text_config(), max_cache_len=64)
    else:
        held = DynamicCache()
        held.layers.append(type("Quantized", (BaseQuantizedLayer,), {"_quantize": None, "_dequantize": None})())
    kinds = [type(layer) for layer in held.layers]
    duet_vlm.apply(model, DuetConfig(dominant=9))
    with torch.no_grad(), pytest.raises(TypeError, match="use the default dynamic cache") as error:
        model(**batch, past_key_values=held, use_cache=True)
    one_sentence(error)
    assert [type(layer) for layer in held.layers] == kinds and held.get_seq_length() == 0
    with pytest.raises(TypeError, match="use the default dynamic cache"):
        model.generate(**batch, max_new_tokens=2, cache_implementation="static")
    assert model.generate(**batch, max_new_tokens=2).shape[1] == batch["input_ids"].shape[1] + 2


def test_embeddings_without_ids_and_half_an_image() -> None:
    model, batch = tiny.build(), tiny.inputs()
    duet_vlm.apply(model, DuetConfig(dominant=9))
    embeds = model.get_input_embeddings()(batch["input_ids"])
    with pytest.raises(ValueError, match="inputs_embeds came with an image but without input_ids") as error:
        model(inputs_embeds=embeds, pixel_values=batch["pixel_values"])
    one_sentence(error)
    with torch.no_grad(), pytest.raises(ValueError, match="leave out prefill_chunk_size"):
        model.generate(**batch, max_new_tokens=2, prefill_chunk_size=20)
    short = {**batch, "input_ids": batch["input_ids"][:, 10:], "attention_mask": None}  # cuts into the image
    with torch.no_grad(), pytest.raises(ValueError, match="Image features and image tokens do not match"):
        model(**short)


def test_saved_settings_with_an_unknown_key() -> None:
    with pytest.raises(ValueError, match="setting 'dominants' is unknown: a DuetConfig has dominant"):
        DuetConfig.from_dict({"dominants": 3})
