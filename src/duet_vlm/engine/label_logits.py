"""In training, logits only where a label is predicted: most of a prompt is image and question.

The stock arguments `logits_to_keep` and `shift_labels` do it, so the stock loss gives the same value and gradients.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .. import host
from ..stage2.queries import IGNORED

# a call with one of these has chosen its logits; the last is TRL's head, which skips what has no label itself
CHOSEN = ("logits_to_keep", "shift_labels", "fused_lm_head")


def is_possible(model: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a training forward of `model` with these keyword arguments may compute fewer logits.

    Only the stock forward is known to take a mask as `logits_to_keep`, so a class with another one is left alone.
    """
    stock = type(model).forward.__module__.startswith("transformers.") and host.takes(model, "logits_to_keep")
    training = model.training and torch.is_grad_enabled()
    return stock and training and not any(name in kwargs for name in CHOSEN)


def restrict(labels: Tensor) -> dict[str, Tensor]:
    """Return stock arguments for labels (B, S): `logits_to_keep` (B, S) bool, `shift_labels` of the n places it keeps.

    The last place of the first row is always among them, without a label: so `lm_head` is never given nothing, and
    runs in every step of every process.
    """
    following = pad(labels, (0, 1), value=IGNORED)[:, 1:]
    keep = following != IGNORED
    keep[0, -1] = True
    return {"logits_to_keep": keep, "shift_labels": following[keep]}


def fill(output: Any, keep: Tensor) -> Any:
    """Give a model's output, which has a loss, logits of every place; see `_filled`."""
    if isinstance(output, tuple):
        loss, logits, *others = output
        return (loss, _filled(logits, keep), *others)
    output.logits = _filled(output.logits, keep)
    return output


def _filled(logits: Tensor, keep: Tensor) -> Tensor:
    """Spread logits (n, V) over the places that `keep` (B, S) marks: (B, S, V), which is not a number elsewhere.

    A metric that reads a place without a label becomes not a number too, instead of being silently wrong.
    """
    full = logits.new_full((*keep.shape, logits.shape[-1]), torch.nan)
    full[keep.to(logits.device)] = logits
    return full


def warn_without_labels(model: Any) -> bool:
    """Warn that answers may choose visual tokens, because no labels say which text is an answer.

    Returns:
        Whether the next call need not be warned: True outside of training.
    """
    training = model.training and torch.is_grad_enabled()
    which = "a training forward" if training else "a forward call outside of generate"
    warnings.warn(
        f"{which} came without labels, so all text after the image ranks visual tokens, answers in it too: pass "
        "labels=, or duet_labels= with the same content where no loss is computed inside the model, or "
        "logits_to_keep=1 where there is no answer.",
        stacklevel=3,
    )
    return not training
