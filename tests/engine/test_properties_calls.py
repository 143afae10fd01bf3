"""Ways of calling, drawn by hypothesis: whatever way a prompt comes in, the same tokens are kept and the oracle agrees.

Drawn are the family, its settings, rows and padding (`drawn.draw`), and the way of the call. The reference is
one forward pass of the prompt alone, held against the masking oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
import zoo
from drawn import TOLERANCE, draw
from exactness import close, generate, kept
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import masked_stock
from torch import Tensor
from transformers import DynamicCache

import duet_vlm
from duet_vlm import Drop, DuetConfig, host
from duet_vlm.families import facts_of

ENCODERS = {"image": "get_image_features", "video": "get_video_features"}
PIXELS = {"image": ("pixel_values", "image_sizes", "image_grid_thw", "image_merge_sizes", "pixel_attention_mask",
                    "target_sizes", "spatial_shapes", "high_res_pixel_values", "image_position_ids"),
          "video": ("pixel_values_videos", "video_grid_thw", "video_merge_sizes", "target_sizes_videos",
                    "video_position_ids", "num_frames_per_video")}  # fmt: skip
NOT_BESIDE_FEATURES = ("image_sizes", "pixel_attention_mask", "high_res_pixel_values")


class Case:
    """A model under drawn settings, a prompt, and what its own forward pass kept and gave."""

    def __init__(self, family: str, seed: int):
        tokens = facts_of(zoo.build(family)).visual_tokens
        attention, chosen, self.rows, padding = draw(family, seed, tokens)
        self.family, self.model = family, zoo.build(family, attention, seed=seed)
        self.batch = zoo.inputs(family, self.rows, padding, seed=seed)
        self.handle = duet_vlm.apply(self.model, DuetConfig(**chosen), tokenizer=tiny.Words())
        self.left = padding == "left"
        self.real = self.batch["attention_mask"].bool()
        self.logits = self.model(**self.batch, use_cache=False, logits_to_keep=0).logits
        self.kept = self.places()

    def places(self) -> Any:
        """Row -> what each drop kept; None where nothing was to do."""
        trace = self.handle.trace
        return None if trace is None else [[(d.layer, d.kept) for d in sample.drops] for sample in trace.samples]

    def same(self, logits: Tensor) -> None:
        assert self.places() == self.kept
        close(logits[self.real], self.logits[self.real], TOLERANCE)

    def oracle(self, batch: dict[str, Any], more: int = 0) -> tuple[Tensor, Tensor]:
        """(B, S, V) logits of the oracle, and (B, S) bool where they mean something."""
        alive = kept(self.handle, self.batch, more)
        hidden, there = masked_stock(self.model, batch, alive, self.handle.renumbers)
        return self.model.lm_head(hidden), there

    def extended(self) -> tuple[dict[str, Any], Tensor]:
        answer = torch.randint(3, 90, (len(self.rows), 4), generator=torch.Generator().manual_seed(7))
        return zoo.extended(self.family, self.batch, answer), answer


def as_it_is(case: Case) -> None:
    if case.kept is not None:
        expected, there = case.oracle(case.batch)
        close(case.logits[there], expected[there], TOLERANCE)


def by_position(case: Case) -> None:
    names = [n for n in host.argument_names(type(case.model.base_model)) or () if n in case.batch]
    order = list(host.argument_names(type(case.model.base_model)) or ())
    last = max(order.index(name) for name in names)
    rest = {k: v for k, v in case.batch.items() if k not in order[: last + 1]}
    positional = [case.batch.get(name) for name in order[: last + 1]]
    out = case.model.base_model(*positional, **rest, use_cache=False)
    case.same(out.logits if case.model.base_model is case.model else case.model.lm_head(out.last_hidden_state))


def features_encoded_alone(case: Case) -> None:
    outputs, rest = {}, dict(case.batch)
    for kind, (first, *others) in PIXELS.items():
        if first in case.batch:
            encoder = getattr(case.model.base_model, ENCODERS[kind])
            known = {k: case.batch[k] for k in (first, *others) if k in case.batch}
            outputs[kind] = encoder(**known, return_dict=True)
            rest.pop(first)
            rest = {k: v for k, v in rest.items() if k not in NOT_BESIDE_FEATURES}
    case.same(case.model(**rest, mm_encoder_outputs=outputs, use_cache=False).logits)


def labelled(case: Case) -> None:
    if not case.left:
        return
    full, answer = case.extended()
    labels = torch.full_like(full["input_ids"], -100)
    labels[:, -answer.shape[1] :] = answer
    logits = case.model(**full, labels=labels, use_cache=False).logits
    assert case.places() == case.kept
    if case.kept is not None:
        close(logits[:, -4:], case.oracle(full, 4)[0][:, -4:], TOLERANCE)


def scored(case: Case) -> None:
    if not case.left or not host.takes(case.model, "logits_to_keep"):
        return
    full, _ = case.extended()
    logits = case.model(**full, logits_to_keep=5, use_cache=False).logits
    assert case.places() == case.kept
    if case.kept is not None:
        close(logits, case.oracle(full, 4)[0][:, -5:], TOLERANCE)


def generated_without_a_cache(case: Case) -> None:
    if case.left:
        cached, plain = (torch.stack(generate(case.model, case.batch, 4, use_cache=on).logits) for on in (True, False))
        close(plain, cached, TOLERANCE)


def behind_a_cached_prefix(case: Case) -> None:
    if len(case.rows) > 1 or case.kept is None or case.family in ("qwen2_5_omni_thinker", "omni_with_sound"):
        return  # stock's thinker numbers what follows a cached text by that text alone
    prefix = torch.randint(3, 90, (1, 11), generator=torch.Generator().manual_seed(5))
    ids = torch.cat([prefix, case.batch["input_ids"]], 1)
    whole = {**case.batch, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    extras = zoo.FAMILIES[case.family].extras
    whole |= extras(whole) if extras else {}
    expected, kept_then = generate(case.model, whole, 2), case.places()
    cache = DynamicCache(config=case.model.config.get_text_config())
    if any(type(layer).__name__ != "DynamicLayer" for layer in cache.layers):
        return  # windows that hold tokens are refused
    named = host.cache_argument(type(case.model).forward, cache)
    case.model(input_ids=prefix, **named, use_cache=True)
    got = generate(case.model, whole, 2, **named)
    assert case.places() is not None
    close(torch.stack(got.logits), torch.stack(expected.logits), 5e-4)
    shifted = [[(layer, [p + 11 for p in places]) for layer, places in row] for row in case.places()]
    assert shifted == kept_then


def after_other_settings_and_a_call_that_failed(case: Case) -> None:
    config = case.handle.config
    case.handle.use(DuetConfig(drops=[Drop(1, 0.0)]))

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    hook = zoo.decoder(case.model).layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        case.model(**case.batch, logits_to_keep=1)
    hook.remove()
    case.handle.use(config)
    case.same(case.model(**case.batch, use_cache=False).logits)


WAYS: list[Callable[[Case], None]] = [
    as_it_is, by_position, features_encoded_alone, labelled, scored, generated_without_a_cache, behind_a_cached_prefix,
    after_other_settings_and_a_call_that_failed,
]  # fmt: skip
DRAWN = dict(seed=st.integers(1000, 10**6), way=st.sampled_from(WAYS))


@torch.no_grad()
def hold(family: str, seed: int, way: Callable[[Case], None]) -> None:
    way(Case(family, seed))


@pytest.mark.parametrize("family", zoo.SEEING)
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(**DRAWN)
def test_ways_of_calling_hold(family: str, seed: int, way: Callable[[Case], None]) -> None:
    hold(family, seed, way)


@pytest.mark.long
@pytest.mark.parametrize("family", zoo.SEEING)
@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(**DRAWN)
def test_many_ways_of_calling_hold(family: str, seed: int, way: Callable[[Case], None]) -> None:
    """12 families, 250 cases each: 3,000."""
    hold(family, seed, way)
