"""Attention implementations that need a CUDA device, held against sdpa on the same device."""

from __future__ import annotations

import pytest
import torch
import zoo
from exactness import generate
from matrix import apply, rows_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_a_padded_batch_answers_as_with_sdpa(family: str, attention: str) -> None:
    if attention == "flash_attention_2":
        pytest.importorskip("flash_attn")
    batch = {
        k: v.cuda().to(torch.bfloat16 if v.is_floating_point() else v.dtype) if isinstance(v, torch.Tensor) else v
        for k, v in zoo.inputs(family, rows_of(family)).items()
    }
    logits = []
    for implementation in ("sdpa", attention):
        model = zoo.build(family, dtype=torch.bfloat16).cuda()
        model.get_decoder().set_attn_implementation(implementation)
        apply(model, family, "stage 1 alone")  # a ranking in bfloat16 may fall differently between kernels
        logits.append(torch.stack(generate(model, batch, 1).logits).float())
    torch.testing.assert_close(*logits, atol=0.15, rtol=0.05)
