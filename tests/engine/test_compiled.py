"""A model that torch.compile was put around answers as the model itself does."""

from __future__ import annotations

import pytest
import torch
import zoo
from matrix import apply

QUICK = ("llava",)
FAMILIES = [f if f in QUICK else pytest.param(f, marks=pytest.mark.long) for f in zoo.FAMILIES]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiled_model_answers_as_itself(family: str) -> None:
    model, batch = zoo.build(family), zoo.inputs(family, ((5, "i", 9), (3, "i", 4)))
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), apply(model, family) as handle:
        expected = model(**batch).logits
        counts = [sample.tokens_per_layer for sample in handle.trace.samples]
        for _ in range(2):  # traced, and from what was traced
            assert (compiled(**batch).logits - expected).abs().max() < 1e-5
            assert [sample.tokens_per_layer for sample in handle.trace.samples] == counts
        ask = dict(max_new_tokens=3, do_sample=False, suppress_tokens=[zoo.IMAGE])
        assert torch.equal(compiled.generate(**batch, **ask), model.generate(**batch, **ask))
