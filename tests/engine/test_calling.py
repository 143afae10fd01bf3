"""Every way people call a model: sampling, several sequences, drafts, more turns, hidden states, pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate, kept, per_layer, weights
from matrix import apply, rows_of, stages
from oracle import masked_stock
from recomputed import FAMILIES, family, recomputed
from transformers import LlamaConfig, LlamaForCausalLM

import duet_vlm
from duet_vlm import host


def repeated(family: str, rows: zoo.Rows, times: int) -> dict[str, Any]:
    """Every row `times` times, each with its own copy of its images."""
    parts = [zoo.inputs(family, (row,), first=i) for i, row in enumerate(rows) for _ in range(times)]
    whole = tiny.stack([part["input_ids"][0] for part in parts], "left")
    for key in dict.fromkeys(k for part in parts for k in part):
        if key not in whole and key != "position_ids" and not key.endswith("token_type_ids"):
            along = zoo.FAMILIES[family].along.get(key, 0)
            found = [part[key] for part in parts if key in part]
            if isinstance(found[0], torch.Tensor):
                whole[key] = torch.cat(found, along)
    return zoo.extended(family, whole)


@family
def test_sampling_several_sequences_per_prompt(family: str) -> None:
    model, rows = zoo.build(family), rows_of(family)[:2]
    asked: dict[str, Any] = dict(do_sample=True, num_return_sequences=3, top_k=20)
    if not zoo.FAMILIES[family].repeats:
        with pytest.raises(ValueError, match=r"expected a non-empty list|tokens do not match"):
            generate(model, zoo.inputs(family, rows), **asked)
        return
    handle = apply(model, family)
    torch.manual_seed(3)
    out = generate(model, zoo.inputs(family, rows), **asked)
    batch = repeated(family, rows, 3)
    new = out.sequences[:, batch["input_ids"].shape[1] :]
    assert len({tuple(row) for row in new.tolist()}) > 2
    with torch.no_grad():
        model(**batch)  # the trace of the repeated batch
    close(torch.stack(out.logits, 1), recomputed(model, handle, family, batch, new))


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in zoo.SEEING])
@stages
def test_assisted_decoding_with_a_text_draft_equals_greedy(family: str, name: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family)[:1])
    torch.manual_seed(0)
    draft = LlamaForCausalLM(LlamaConfig(**{**tiny.TEXT, "num_hidden_layers": 1})).eval()
    draft.generation_config.eos_token_id, draft.generation_config.pad_token_id = None, zoo.PAD
    numbered = batch.pop("position_ids", None) is not None  # one row without padding: stock numbers it so
    if (zoo.FAMILIES[family].extras and not numbered) or "video_second_per_grid" in batch:
        # stock hands the draft what it cannot take (5.23), or cannot take a state back; nothing of ours is in that call
        told = r"_type_ids|shapes cannot be multiplied|stateful models|video_second_per_grid|use_audio_in_video"
        with pytest.raises(Exception, match=told):
            generate(model, batch, 8, assistant_model=draft)
        return
    apply(model, family, name)
    if not host.takes(model, "logits_to_keep"):
        with pytest.raises(duet_vlm.DuetError, match="is not told which tokens are drafted"):
            generate(model, batch, 8, assistant_model=draft)
        return
    plain = generate(model, batch, 8)
    assisted = generate(model, batch, 8, assistant_model=draft)
    assert torch.equal(plain.sequences, assisted.sequences)
    close(torch.stack(plain.logits, 1), torch.stack(assisted.logits, 1))


@family
@pytest.mark.parametrize("mode", ["cache", "no cache"])
def test_forward_with_and_without_a_cache(family: str, mode: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    apply(model, family)
    with torch.no_grad():
        plain = model(**batch, use_cache=False)
        cached = model(**batch, use_cache=mode == "cache")
    real = batch["attention_mask"].bool()
    close(plain.logits[real], cached.logits[real])
    assert plain.logits.shape[:2] == batch["input_ids"].shape
    assert (cached.past_key_values is not None) == (mode == "cache")


@family
@stages
@pytest.mark.parametrize("second", ["text", "image"])
def test_second_turn_ranks_with_its_own_words(family: str, name: str, second: str) -> None:
    model = zoo.build(family)
    first = zoo.inputs(family, rows_of(family)[:1])
    turn = zoo.inputs(family, ((4, "i", 7) if second == "image" else (6,),), seed=8)
    whole, length = whole_of(family, first, turn), first["input_ids"].shape[1]
    with torch.no_grad():
        if family == "gemma3" and second == "image":
            # stock (5.23) does not attend both ways within a later turn's image: no recompute can equal it
            cache = model(**first, use_cache=True).past_key_values
            out = model(**turn | {"attention_mask": whole["attention_mask"]}, past_key_values=cache).logits
            assert float((out - model(**whole).logits[:, length:]).abs().max()) > 0.1
            return
        if family == "paligemma":
            if second == "image":
                return  # refused, see its own tests
            whole["token_type_ids"][:, length:] = 1  # what follows is causal, whatever its types
        handle = apply(model, family, name)
        cache = model(**first, use_cache=True).past_key_values
        alive, sizes = kept(handle, first), weights(handle, first, family)
        step = {k: v for k, v in turn.items() if k not in ("attention_mask", "mm_token_type_ids")}
        step["attention_mask"] = whole["attention_mask"]
        if "position_ids" in step:
            step["position_ids"] = whole["position_ids"][:, length:]
        if zoo.FAMILIES[family].mrope:
            # stock leaves the positions of a later image to the caller, as `generate` does
            step["position_ids"] = zoo.rope_index(model, whole)[..., length:]
            step |= {k: turn[k] for k in ("mm_token_type_ids",) if k in turn}
        elif "mm_token_type_ids" in turn:  # where an image attends both ways, by places of the whole sequence
            step["mm_token_type_ids"] = whole["mm_token_type_ids"]
        out = model(**step, past_key_values=cache, use_cache=True).logits
        more = turn["input_ids"].shape[1]
        now = kept(handle, turn) if second == "image" else {}
        everywhere = {}
        for layer in alive:
            after = now.get(layer, torch.ones(1, more, dtype=torch.bool))
            everywhere[layer] = torch.cat([alive[layer], after], 1)
        if sizes is not None:
            after = weights(handle, turn, family) if second == "image" else torch.ones(1, more)
            assert after is not None
            sizes = torch.cat([sizes, after], 1)
        hidden, there = masked_stock(model, whole, everywhere, handle.renumbers, sizes)
    here = there[:, length:]
    close(out[here], model.lm_head(hidden)[:, length:][here].detach())


def whole_of(family: str, first: dict[str, Any], turn: dict[str, Any]) -> dict[str, Any]:
    """Both turns as one prompt."""
    whole = {}
    for key in dict.fromkeys([*first, *turn]):
        parts = [x[key] for x in (first, turn) if key in x and isinstance(x[key], torch.Tensor)]
        if not parts:
            continue  # no tensor: `extended` adds it again
        whole[key] = (
            torch.cat(
                parts,
                1 if key in ("input_ids", "attention_mask", "position_ids") else zoo.FAMILIES[family].along.get(key, 0),
            )
            if key not in ("mm_token_type_ids", "token_type_ids")
            else torch.cat(parts, 1)
        )
    return zoo.extended(family, whole)


@family
def test_hidden_states_can_be_asked_for(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family)[:1])
    handle = apply(model, family)
    with torch.no_grad():
        out = model(**batch, output_hidden_states=True, use_cache=False)
    lengths = [x.shape[1] for x in out.hidden_states]
    seen = zoo.visual(batch) if handle.trace.audio is None else zoo.media(batch)
    counts = [int((~seen).sum()) + n for n in per_layer(handle)[0]]
    assert lengths[1:-1] == counts[:-1]  # after each layer; the last one is filled back


def test_pipeline() -> None:
    from transformers import pipeline

    from duet_vlm.demo.model import load
    from duet_vlm.demo.scenes import make_scene

    model, processor = load()
    image = scene_image(make_scene)
    asked = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]}]
    inputs = processor.apply_chat_template(
        asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    config = duet_vlm.DuetConfig.preset("duet", model=model, keep=0.33)
    with duet_vlm.apply(model, config, tokenizer=processor) as handle:
        expected = processor.decode(
            model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        direct = handle.trace.to_dict()
        ask = pipeline("image-text-to-text", model=model, processor=processor)
        got = ask(text=asked, max_new_tokens=4, return_full_text=False)[0]["generated_text"]
        assert got.strip() == expected.strip() != ""
        assert handle.trace.to_dict() == direct


QUESTION = "what color is the star ?"


def scene_image(make_scene: Any) -> Any:
    import numpy as np
    from PIL import Image

    return Image.fromarray(make_scene(np.random.default_rng(5)).image)
