"""`fallback`: a row that fell back answers as stock, the others as compressed; alone bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import matrix
import pytest
import tiny
import torch
import zoo
from exactness import close, generate
from matrix import settings
from transformers import DynamicCache

import duet_vlm
from duet_vlm import DuetConfig, DuetError

NAMES = ("both stages", "stage 2 alone")


def guarded(model: Any, family: str, name: str, fallback: float) -> duet_vlm.Duet:
    return duet_vlm.apply(model, replace(settings(family, name), fallback=fallback), tokenizer=tiny.Words())


def between(leads: list[float]) -> float:
    """A threshold below which one row of them is, and not by a hair."""
    first, second, *_ = sorted(leads)
    return (first + second) / 2


def steps(output: Any) -> torch.Tensor:
    return torch.stack(output.logits, 1)


@matrix.family
@pytest.mark.parametrize("name", NAMES)
def test_rows_that_fell_back_answer_as_stock_and_the_others_as_compressed(family: str, name: str) -> None:
    config = settings(family, name)
    if config.downsample is not None or config.audio_keep is not None:
        with pytest.raises(DuetError, match="needs all visual tokens"):
            replace(config, fallback=0.5)
        return
    model, batch = zoo.build(family), zoo.inputs(family, matrix.rows_of(family))
    stock = generate(model, batch)
    with duet_vlm.apply(model, config, tokenizer=tiny.Words()):
        compressed = generate(model, batch)
    with guarded(model, family, name, 1) as handle:
        out = generate(model, batch)
        leads = [sample.margin for sample in handle.trace.samples]
        assert all(sample.fell_back for sample in handle.trace.samples)
    assert torch.equal(steps(out), steps(stock))
    best = compressed.logits[0].softmax(-1).sort(-1, descending=True).values
    assert leads == pytest.approx((best[:, 0] - best[:, 1]).tolist(), abs=1e-6)
    unsure = between(leads)
    with guarded(model, family, name, unsure) as handle:
        out = generate(model, batch)
        samples = handle.trace.samples
    fell = [sample.fell_back for sample in samples]
    assert fell == [lead < unsure for lead in leads]
    assert sum(fell) == 1
    for row, sample in enumerate(samples):
        wanted = stock if sample.fell_back else compressed
        if torch.equal(out.sequences[row], wanted.sequences[row]):
            close(steps(out)[row], steps(wanted)[row])
        else:  # two tokens that are level may change places, in the first step at which rows differ
            close(out.logits[0][row], wanted.logits[0][row])
        whole = len(sample.visual)
        again = whole if sample.fell_back else 0
        assert sample.work_per_layer == [n + again for n in sample.tokens_per_layer]
        assert sample.held_per_layer == ([whole] * handle.layers if sample.fell_back else sample.tokens_per_layer)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_5", "gemma3"])
def test_a_mixed_batch_answers_as_each_row_alone(family: str) -> None:
    model, rows = zoo.build(family), matrix.rows_of(family)
    with guarded(model, family, "both stages", 0) as handle:
        generate(model, zoo.inputs(family, rows))
        unsure = between([sample.margin for sample in handle.trace.samples])
    with guarded(model, family, "both stages", unsure):
        together = generate(model, zoo.inputs(family, rows))
        for number, row in enumerate(rows):
            alone = generate(model, zoo.inputs(family, (row,), first=number))
            close(steps(together)[number], steps(alone)[0])


def test_a_threshold_of_0_only_notes_the_lead() -> None:
    model, batch = zoo.build("llava"), zoo.inputs("llava", matrix.ROWS)
    with matrix.apply(model):
        compressed = generate(model, batch)
    with guarded(model, "llava", "both stages", 0) as handle:
        out = generate(model, batch)
        assert not any(sample.fell_back for sample in handle.trace.samples)
    assert torch.equal(steps(out), steps(compressed))


def test_beams_of_a_sample_fall_back_together() -> None:
    model, batch = zoo.build("llava"), zoo.inputs("llava", matrix.ROWS)
    stock = model.generate(**batch, num_beams=3, max_new_tokens=4, do_sample=False)
    with guarded(model, "llava", "both stages", 1) as handle:
        out = model.generate(**batch, num_beams=3, max_new_tokens=4, do_sample=False)
        assert len(handle.trace.samples) == 9
        leads = [sample.margin for sample in handle.trace.samples][::3]
    assert torch.equal(out, stock)
    with guarded(model, "llava", "both stages", between(leads)) as handle:
        model.generate(**batch, num_beams=3, max_new_tokens=4, do_sample=False)
        fell = [sample.fell_back for sample in handle.trace.samples]
        assert fell[::3] == fell[1::3] == fell[2::3]
        assert sum(fell) == 3


def test_a_forward_pass_with_or_without_labels_never_falls_back() -> None:
    model, batch = zoo.build("llava"), zoo.inputs("llava", matrix.ROWS)
    with matrix.apply(model):
        compressed = model(**batch, labels=batch["input_ids"])
    with guarded(model, "llava", "both stages", 1) as handle:
        out = model(**batch, labels=batch["input_ids"])
        assert handle.trace.samples[0].margin is None
    assert torch.equal(out.loss, compressed.loss)


def test_text_alone_is_not_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = zoo.build("llava"), zoo.inputs("llava", ((12,),))
    stock, passes = generate(model, batch), []
    with guarded(model, "llava", "both stages", 1):
        handle = model.model.register_forward_pre_hook(lambda *_: passes.append(1))
        out = generate(model, batch)
        handle.remove()
    assert torch.equal(steps(out), steps(stock))
    assert len(passes) == len(out.logits)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"use_cache": False}, "leave out use_cache"),
        ({"prompt_lookup_num_tokens": 2}, "leave out prompt_lookup_num_tokens"),
        ({"output_hidden_states": True}, "leave out output_hidden_states"),
        ({"output_attentions": True}, "leave out output_attentions"),
        ({"synced_gpus": True}, "leave out synced_gpus"),
        ({"prefill_chunk_size": 4}, "leave out prefill_chunk_size"),
    ],
)
def test_what_cannot_be_guarded_is_refused_before_any_work(arguments: dict[str, Any], why: str) -> None:
    model, batch, passes = zoo.build("llava"), zoo.inputs("llava", matrix.ROWS[:1]), []
    with guarded(model, "llava", "both stages", 0.5):
        model.model.vision_tower.register_forward_pre_hook(lambda *_: passes.append(1))
        with pytest.raises(DuetError, match=why):
            model.generate(**batch, max_new_tokens=2, do_sample=False, **arguments)
    assert not passes


def test_a_cache_that_holds_tokens_is_refused() -> None:
    model, batch = zoo.build("llava"), zoo.inputs("llava", matrix.ROWS[:1])
    cache = DynamicCache(config=model.config)
    with guarded(model, "llava", "both stages", 0.5):
        model.generate(**batch, max_new_tokens=2, do_sample=False, past_key_values=cache)
        held = cache.get_seq_length()
        with pytest.raises(DuetError, match=f"the cache holds {held}"):
            model.generate(**batch, max_new_tokens=2, do_sample=False, past_key_values=cache)


@pytest.mark.parametrize("value", [-0.1, 1.5, True, "0.2", float("nan")])
def test_a_fallback_that_is_no_difference_of_probabilities_is_refused(value: Any) -> None:
    with pytest.raises(DuetError, match="must be a difference of probabilities, from 0 to 1"):
        DuetConfig(fallback=value)


def test_a_model_without_fallback_has_no_hook_for_it() -> None:
    model = zoo.build("llava")
    with matrix.apply(model):
        without = len(model._forward_hooks), len(model._forward_pre_hooks)
    with guarded(model, "llava", "both stages", 0.5) as handle:
        assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == (without[0] + 1, without[1] + 1)
        handle.use(settings("llava"))
        assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == without
