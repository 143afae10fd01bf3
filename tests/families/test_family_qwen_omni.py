"""The thinkers of Qwen-Omni: a prompt with a picture and sound, of which only the picture is compressed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from exactness import close, generate, kept
from matrix import apply
from oracle import masked_stock
from zoo_omni import AUDIO, AUDIO_END, AUDIO_START

FRAMES = 40  # of the spectrum
# audio tokens that are made of it: one convolution and a pooling halve it, or three convolutions
TOKENS = {"qwen2_5_omni_thinker": 10, "qwen3_omni_moe_thinker": 5}


def with_sound(family: str, seed: int = 1) -> dict[str, Any]:
    batch = zoo.inputs(family, ((5, "i", 9),), seed=seed)
    sound = torch.tensor([[AUDIO_START, *[AUDIO] * TOKENS[family], AUDIO_END, 11, 12]])
    batch["input_ids"] = torch.cat([batch["input_ids"], sound], 1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    spectrum = torch.randn(1, 16, FRAMES, generator=torch.Generator().manual_seed(seed))
    return batch | {"input_features": spectrum, "feature_attention_mask": torch.ones(1, FRAMES, dtype=torch.long)}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", TOKENS)
def test_sound_is_never_dropped(family: str, attention: str) -> None:
    model, batch = zoo.build(family, attention), with_sound(family)
    with torch.no_grad():
        stock = model(**batch).logits
    handle = apply(model, family)
    with torch.no_grad():
        out = model(**batch)
    alive = kept(handle, batch)
    assert all(bool(there[batch["input_ids"] == AUDIO].all()) for there in alive.values())
    hidden, there = masked_stock(model, batch, alive, False)
    close(out.logits[there], model.lm_head(hidden)[there].detach())
    assert not torch.allclose(out.logits[there], stock[there], atol=1e-3)
    steps = torch.stack(generate(model, batch, 1).logits, 1)
    close(steps[:, 0], out.logits[:, -1])
    handle.remove()
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, stock)
