"""Models in other hands: half precision, 8 bits, offloaded, dispatched over devices, under adapters."""

from __future__ import annotations

import re
from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate
from matrix import apply, rows_of
from recomputed import family, recomputed
from torch import Tensor

import duet_vlm

# What stock generate cannot run where weights are offloaded:
# image_newline, alpha and the like are the core model's own, and images are encoded before they are loaded
READ_TOO_EARLY = ("llava_next", "llava_onevision", "idefics3", "deepseek_vl_hybrid")
# places of SigLIP 2, GLM and Whisper, the pad's embedding of Gemma 4: a weight, or its device, is asked for past the
# module that loads it
READ_PAST_ITS_MODULE = ("glm4", "voxtral", "qwen2_audio", "minicpmv4", "lfm2_vl", "gemma4_shared")


@family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_and_stores_less(family: str, dtype: torch.dtype) -> None:
    batch = zoo.inputs(family, rows_of(family)[:1])
    full, half = zoo.build(family), zoo.build(family, dtype=dtype)
    half_batch = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in batch.items()}
    handles = [apply(model, family) for model in (full, half)]
    with torch.no_grad():
        expected, out = full(**batch), half(**half_batch)
    assert out.logits.isfinite().all() and out.logits.dtype == dtype
    counts = [handle.trace.samples[0].tokens_per_layer for handle in handles]
    assert counts[0] == counts[1]
    stored = [
        sum(keys.nbytes for layer in x.past_key_values.layers if (keys := getattr(layer, "keys", None)) is not None)
        for x in (expected, out)
    ]  # layers with a state have no keys, those that borrow some store none
    assert stored[1] * 2 == stored[0]


@family
def test_offloaded_weights(family: str, tmp_path: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    with apply(model, family), torch.no_grad():
        expected = model(**batch).logits, generate(model, batch, 2).logits
    accelerate.disk_offload(model, tmp_path, execution_device="cpu")
    try:
        generate(model, batch, 1)
    except (NotImplementedError, RuntimeError):
        assert family.startswith(READ_TOO_EARLY + READ_PAST_ITS_MODULE)
        return
    apply(model, family)
    with torch.no_grad():  # between generate and the core model, hooks of accelerate copy what is encoded
        out = model(**batch).logits, generate(model, batch, 2).logits
    close(out[0], expected[0])
    close(torch.stack(out[1]), torch.stack(expected[1]))


@family
def test_device_map(family: str, tmp_path: Any) -> None:
    pytest.importorskip("accelerate")
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    apply(model, family)
    with torch.no_grad():
        expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, device_map={"": "cpu"})
    duet_vlm.apply(again, tokenizer=tiny.Words())
    with torch.no_grad():
        close(again(**batch).logits, expected)


@family
def test_eight_bit_weights(family: str) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family)[:1])
    with apply(model, family), torch.no_grad():
        full = model(**batch).logits
    decoder_only = lambda module, name: isinstance(module, torch.nn.Linear) and "layers" in name  # noqa: E731
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig(), filter_fn=decoder_only)
    handle = apply(model, family)
    out = generate(model, batch)
    close(torch.stack(out.logits, 1), recomputed(model, handle, family, batch, new_tokens(batch, out)), 1e-3)
    assert not torch.equal(out.logits[0], full[:, -1])


def new_tokens(batch: dict[str, Any], out: Any) -> Tensor:
    new: Tensor = out.sequences[:, batch["input_ids"].shape[1] :]
    return new


@family
@pytest.mark.parametrize("first", ["apply", "adapter"])
def test_adapters(family: str, first: str) -> None:
    peft = pytest.importorskip("peft")
    batch = zoo.inputs(family, rows_of(family))
    # linear modules, because some towers hold each in one that clips, which PEFT cannot wrap
    linear = [name for name, module in zoo.build(family).named_modules() if isinstance(module, torch.nn.Linear)]
    adapted = [name for name in linear if re.search(r"layers.*(q_proj|v_proj)", name)]
    lora = peft.LoraConfig(r=4, target_modules=adapted, init_lora_weights=False)
    results = []
    for order in (first, "merged"):
        model = zoo.build(family)
        if order == "apply":
            apply(model, family)
        torch.manual_seed(5)
        wrapped = peft.get_peft_model(model, lora)
        if order == "merged":
            wrapped = wrapped.merge_and_unload()
        if order != "apply":
            apply(wrapped, family)
        with torch.no_grad():
            results.append(wrapped(**batch).logits[batch["attention_mask"].bool()])
    close(*results)
