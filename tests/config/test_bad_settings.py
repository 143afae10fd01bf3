"""Bad input: one clear sentence that names the value, before anything moves, and nothing left behind."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
import tiny
import torch
from hostile import VALUES, one_sentence
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2_5_VLConfig
from transformers.cache_utils import StaticCache

import duet_vlm
from duet_vlm import Drop, DuetConfig, DuetError

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
    (dict(dominant=5, history=0.5, pixelprune=0), "history 0.5 and pixelprune are not possible together"),
    (dict(dominant=5, merging="scope", coverage=0.5, pixelprune=1), "coverage 0.5 and pixelprune are not possible"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=[m for _, m in SETTINGS])
def test_settings_that_cannot_be_are_refused_in_a_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DuetError, match=message) as error:
        DuetConfig(**settings)
    one_sentence(error)


@pytest.mark.parametrize("layer", [0, -1, 2.0, True])
def test_a_drop_layer_is_a_whole_number_from_1(layer: Any) -> None:
    with pytest.raises(DuetError, match=f"drop layer {layer!r} is not possible") as error:
        Drop(layer, 0.5)
    one_sentence(error)


@pytest.mark.parametrize("keep", [-0.1, 1.1, "half"])
def test_a_keep_ratio_is_a_number_from_0_to_1(keep: Any) -> None:
    with pytest.raises(DuetError, match=f"keep ratio {keep!r} at drop layer 3") as error:
        Drop(3, keep)
    one_sentence(error)


def test_a_layer_after_the_drop_cannot_rank_for_it() -> None:
    with pytest.raises(DuetError, match="rank_at 4 must be a layer from 0 to the drop layer 3"):
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
    with pytest.raises(DuetError, match=message) as error:
        duet_vlm.apply(model, DuetConfig(**settings), tokenizer=tiny.Words() if "language" in settings else None)
    one_sentence(error)
    assert model.config.to_dict() == before
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_salient_needs_no_tokenizer_where_nothing_is_ranked() -> None:
    with duet_vlm.apply(tiny.build(), DuetConfig(dominant=9, drops=[Drop(4, 0.0)])) as handle:
        assert handle.config.query == "salient"


def test_second_apply_and_missing_config() -> None:
    model, batch = tiny.build(), tiny.inputs()
    with pytest.raises(DuetError, match="there is no config"):
        duet_vlm.apply(model)
    first = duet_vlm.apply(model, DuetConfig(dominant=9))
    before = model(**batch).logits
    with pytest.raises(DuetError, match="compressed already") as error:
        duet_vlm.apply(model, DuetConfig(dominant=5))
    one_sentence(error)
    assert torch.equal(model(**batch).logits, before) and model.config.duet == first.config.to_dict()


def test_unsupported_models() -> None:
    with pytest.raises(DuetError, match="'llama' are not supported: duet-vlm compresses") as error:
        duet_vlm.apply(LlamaForCausalLM(LlamaConfig(**tiny.TEXT)), DuetConfig(dominant=9))
    one_sentence(error)
    model = tiny.build()
    model.config.vision_config.model_type = "siglip_vision_model"
    with pytest.raises(DuetError, match=r"with a CLS token \(clip_vision_model, .*\), and .siglip_vision_model."):
        duet_vlm.apply(model, DuetConfig(dominant=9))
    model.config.vision_config.model_type = "clip_vision_model"
    model.config.vision_feature_select_strategy = "full"
    with pytest.raises(DuetError, match="vision_feature_select_strategy 'default'"):
        duet_vlm.apply(model, DuetConfig(dominant=9))


PRESETS: list[tuple[dict[str, Any], str]] = [
    (dict(name="tome", tokens=64), "method 'tome' is unknown: choose one of duet, duet-plus, visionzip"),
    (dict(name="duet"), "there is no budget: give tokens="),
    (dict(name="duet", tokens=9, keep=0.5), "tokens 9 and keep 0.5 are both a budget"),
    (dict(name="duet", keep=1.5), "keep 1.5 must be a fraction"),
    (dict(name="duet", tokens=36), "duet cannot meet a budget of 36 tokens here"),
    (dict(name="visionzip", tokens=0.5), "visionzip cannot meet a budget of 0.5 tokens here"),
    (dict(name="pyramiddrop", tokens=2), "pyramiddrop cannot meet"),
    (dict(name="fastv", tokens=400), "fastv cannot meet"),
    (dict(name="duet", tokens="10"), "tokens '10' must be a number above 0"),
    (dict(name="duet", tokens=[1]), r"tokens \[1\] must be a number above 0"),
    (dict(name="duet", tokens=10**400), r"tokens about 10\*\*400 must be a number above 0, and at most"),
    (dict(name="duet", tokens=float("nan")), "tokens nan must be a number above 0"),
    (dict(name="duet", tokens=0), "tokens 0 must be a number above 0"),
    (dict(name="duet", tokens=True), "tokens True must be a number above 0"),
    (dict(name="duet", keep="0.3"), "keep '0.3' must be a fraction"),
    (dict(name="duet", keep=float("nan")), "keep nan must be a fraction"),
    (dict(name="duet", keep=0.3, grid="ab"), r"grid 'ab' must be \(rows, columns\) or \(frames, rows, columns\)"),
    (dict(name="duet", keep=0.3, grid=(1,)), r"grid \(1,\) must be"),
    (dict(name="duet", keep=0.3, grid=(0, 0, 0)), r"grid \(0, 0, 0\) must be"),
    (dict(name="duet", keep=0.3, grid=(4.0, 4.0)), r"grid \(4.0, 4.0\) must be"),
    (dict(name=None, keep=0.3), "method None is unknown: choose one of duet"),
    (dict(name=5, keep=0.3), "method 5 is unknown: choose one of duet"),
    (dict(name="", keep=0.3), "method '' is unknown: choose one of duet"),
    (dict(name=["duet"], keep=0.3), r"method \['duet'\] is unknown"),
    (dict(name="duet", keep=0.3, drops=5), "drops 5 must be a list of drops"),
    (dict(name="duet", keep=0.3, querry="last"), "setting 'querry' is unknown: a DuetConfig has query"),
    (dict(name="none", querry="last"), "setting 'querry' is unknown: a DuetConfig has query"),
    (dict(name="duet", keep=0.3, dominant=None), "contextual .* needs stage 1"),
    (dict(name="uniform", keep=0.3, diverse=True), "diverse has no meaning for merging 'uniform'"),
]


@pytest.mark.parametrize(("request_", "message"), PRESETS, ids=[m for _, m in PRESETS])
def test_presets_that_cannot_be_are_refused_in_a_sentence(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(DuetError, match=message) as error:
        DuetConfig.preset(request_.pop("name"), model=tiny.build(), **request_)
    one_sentence(error)


def test_preset_needs_a_model_and_knows_its_family() -> None:
    with pytest.raises(DuetError, match="preset 'duet' needs model="):
        DuetConfig.preset("duet", tokens=64)
    with pytest.raises(DuetError, match="models of type 'llama' are not supported"):
        DuetConfig.preset("duet", tokens=64, model=LlamaConfig())


@pytest.mark.parametrize("argument", ["name", "model", "tokens", "keep", "grid", "dominant", "drops", "merging"])
def test_any_value_for_a_preset_gives_a_config_or_one_sentence(argument: str) -> None:
    models = [tiny.build().config, Qwen2_5_VLConfig(text_config=dict(num_hidden_layers=8))]
    for value, name in itertools.product(VALUES.values(), ("duet", "fastv", "downsample", "none", "visionzip+fastv")):
        for model, budget in itertools.product(models, ({"tokens": 9}, {"keep": 0.3})):
            asked: dict[str, Any] = {"name": name, "model": model, **budget} | {argument: value}
            try:
                config = DuetConfig.preset(**asked)
            except ValueError as error:
                one_sentence(error)
            else:
                assert DuetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_grid_may_be_what_the_processor_gave() -> None:
    model = Qwen2_5_VLConfig(text_config=dict(num_hidden_layers=8))
    grid = torch.tensor([[1, 12, 8]])
    found = [DuetConfig.preset("visionzip", model=model, keep=0.5, grid=g) for g in (grid[0], (12, 8), [1, 12, 8])]
    assert found[0] == found[1] == found[2] and found[0].dominant + found[0].contextual == 12  # type: ignore[operator]
    with pytest.raises(DuetError, match=r"grid \(1, 1\) is less than one visual token of a qwen2_5_vl") as error:
        DuetConfig.preset("visionzip", model=model, keep=0.5, grid=(1, 1))
    one_sentence(error)


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
    with pytest.raises(DuetError, match="inputs_embeds came with an image but without input_ids") as error:
        model(inputs_embeds=embeds, pixel_values=batch["pixel_values"])
    one_sentence(error)
    with torch.no_grad(), pytest.raises(DuetError, match="leave out prefill_chunk_size"):
        model.generate(**batch, max_new_tokens=2, prefill_chunk_size=20)
    short = {**batch, "input_ids": batch["input_ids"][:, 10:], "attention_mask": None}  # cuts into the image
    with torch.no_grad(), pytest.raises(ValueError, match="Image features and image tokens do not match"):
        model(**short)


def test_saved_settings_with_an_unknown_key() -> None:
    with pytest.raises(DuetError, match="setting 'dominants' is unknown: a DuetConfig has dominant"):
        DuetConfig.from_dict({"dominants": 3})
