"""Caches, threads, copies and saved models of every family share nothing with each other."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import tiny
import torch
import zoo
from exactness import close, generate
from matrix import apply, family, rows_of
from torch import Tensor

import duet_vlm

# stock models of the others keep what the last prompt's images did to positions: one call at a time
SEVERAL_CALLS = [name for name, member in zoo.FAMILIES.items() if not member.mrope]


@pytest.mark.parametrize("family", SEVERAL_CALLS)
def test_two_caches_interleaved_share_nothing(family: str) -> None:
    model = zoo.build(family)
    first, second = (zoo.inputs(family, (row,), seed=seed) for row, seed in (((5, "i", 9), 1), ((2, "i", 6), 5)))
    apply(model, family)
    steps = torch.tensor([[7], [11], [23]])

    def run(batches: list[dict[str, Any]]) -> list[list[Tensor]]:
        caches = [model(**b, use_cache=True).past_key_values for b in batches]
        results: list[list[Tensor]] = [[] for _ in batches]
        for token in steps:
            for result, cache in zip(results, caches, strict=True):
                result.append(model(input_ids=token[None], past_key_values=cache, use_cache=True).logits)
        return results

    with torch.no_grad():
        together, apart = run([first, second]), run([first]) + run([second])
    for a, b in zip(together, apart, strict=True):
        assert torch.equal(torch.cat(a), torch.cat(b))


@pytest.mark.parametrize("family", SEVERAL_CALLS)
def test_two_threads_on_one_model(family: str) -> None:
    model = zoo.build(family)
    batches = [zoo.inputs(family, ((3 + i, "i", 9 - i),), seed=i) for i in range(2)]
    apply(model, family)
    expected = [generate(model, b).sequences for b in batches]
    wrong: list[Any] = []

    def work(i: int) -> None:
        for _ in range(4):
            try:
                if not torch.equal(generate(model, batches[i]).sequences, expected[i]):
                    wrong.append(i)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@family
def test_deep_copy_stands_alone(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    apply(model, family)
    clone, other = copy.deepcopy(model), zoo.build(family, seed=9)
    clone.load_state_dict(other.state_dict())
    with torch.no_grad():
        before = model(**batch).logits
        with apply(other, family):
            assert torch.equal(clone(**batch).logits, other(**batch).logits)
        assert torch.equal(model(**batch).logits, before)


@family
def test_saved_and_read_again(family: str, tmp_path: Any) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, rows_of(family))
    handle = apply(model, family)
    with torch.no_grad():
        expected = model(**batch).logits
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path)
        assert duet_vlm.apply(again, tokenizer=tiny.Words()).config == handle.config
        close(again(**batch).logits, expected)
