"""What a compressed model says, computed once more without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import zoo
from exactness import kept
from oracle import masked_stock
from torch import Tensor

FAMILIES = tuple(name for name in zoo.FAMILIES if name != "llava_mistral")

family = pytest.mark.parametrize("family", FAMILIES)


def recomputed(model: Any, handle: Any, family: str, batch: dict[str, Any], new: Tensor) -> Tensor:
    """(B, new, vocabulary) logits of every step, from the masking oracle on the whole sequence."""
    alive = kept(handle, batch, more=new.shape[1] - 1)
    hidden, _ = masked_stock(model, zoo.extended(family, batch, new[:, :-1]), alive, handle.renumbers)
    logits: Tensor = model.lm_head(hidden)[:, batch["input_ids"].shape[1] - 1 :].detach()
    return logits
