"""`duet_vlm.check`: every promise on one model, in turn."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from .. import applying
from ..errors import DuetError
from ..families import family_of
from ..host import decoder_of
from ..measuring.timing import versions
from ..presets import DuetConfig, preset
from . import counts, exact, ways
from .alike import alike
from .report import FAILS, Line, Report
from .state import unchanged
from .subject import Subject

if TYPE_CHECKING:
    from transformers import ProcessorMixin

KEEP = 1 / 3  # of the preset that is tried where no settings are given

# promise -> (its name, the model) -> its line; what a failed call leaves behind would touch the others, so it is last
PROMISES: dict[str, Callable[[str, Subject], Line]] = {
    "off = stock, bit for bit": exact.off,
    "text alone = stock, bit for bit": exact.text_alone,
    "removed = stock, bit for bit": exact.removed,
    "cached = recomputed": lambda name, subject: alike(name, subject, ways.recomputed),
    "batch = singles": lambda name, subject: alike(name, subject, ways.batched, "padded on the left"),
    "kept counts = the schedule's": counts.kept_counts,
    "KV bytes = the schedule's": counts.kv_bytes,
    "second turn = recomputed": lambda name, subject: alike(name, subject, ways.second_turn),
    "beams = their sequences alone": lambda name, subject: alike(name, subject, ways.beams, "3 beams, 2 returned"),
    "two threads = each alone": lambda name, subject: alike(name, subject, ways.threads),
    "usable after a failed call": exact.failed_call,
}


def check(
    model: Any,
    processor: ProcessorMixin,
    config: DuetConfig | None = None,
    *,
    status: Callable[[str], Any] = lambda _: None,
) -> Report:
    """Try this library's promises on a model: its weights, device, dtype and attention, and the installed versions.

    Two drawn pictures and three questions are asked, through the model's own processor; no data set, no network. The
    model is used in eval mode with plain generation settings, and is left as it was.

    What each promise means, and what difference is allowed, is in docs/check.md.

    Args:
        model: a supported model. It must be stock: remove a compression first.
        processor: the model's processor, with a tokenizer and an image processor.
        config: the settings to try. Without them, those in `model.config.duet` are tried, and where there are none,
            the preset "duet" at a third of the visual tokens.
        status: is called with the name of each promise before it is checked.

    Returns:
        A report with a line for each promise: `holds` is True if none fails, `failing` lists those that do,
        `to_dict()` is plain data, and printing it shows the lines.

    Raises:
        DuetError: the model, the processor or the settings cannot be checked. A promise that fails raises nothing.

    Example:
        >>> import duet_vlm
        >>> from duet_vlm.demo.model import load
        >>> report = duet_vlm.check(*load())
        >>> report.holds, len(report.lines)
        (True, 11)
    """
    config, model = _checked(model, processor, config)
    lines = []
    with unchanged(model):
        model.eval()
        status("stock")
        # what fell back is stock, and no line would say so
        subject = Subject(model, processor, replace(config, fallback=None))
        subject.stock  # noqa: B018  before anything is applied
        for promise, line in PROMISES.items():
            status(promise)
            lines.append(_tried(promise, partial(line, promise, subject)))
    return Report(_about(model, config), lines)


def _tried(promise: str, line: Callable[[], Line]) -> Line:
    """A promise during which something is raised is not kept; the line says what, and keeps the trace."""
    try:
        return line()
    except Exception as error:
        said = (str(error).strip() or "without a message").splitlines()[0]
        return Line(promise, FAILS, None, None, f"{type(error).__name__}: {said}", traceback.format_exc())


def _checked(model: Any, processor: ProcessorMixin, config: DuetConfig | None) -> tuple[DuetConfig, Any]:
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    if not isinstance(model, nn.Module) or not hasattr(model, "config") or not hasattr(model, "generate"):
        raise DuetError(
            f"model {_shown(model)} is no transformers model that generates: load one, for example with "
            "AutoModelForImageTextToText.from_pretrained."
        )
    model_config: Any = model.config
    family_of(model_config)
    if not callable(processor) or not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise DuetError(
            f"processor {_shown(processor)} is no processor with a tokenizer and an image_processor: pass the model's, "
            "for example AutoProcessor.from_pretrained(...)."
        )
    if config is None:
        saved = getattr(model.config, "duet", None)
        config = preset("duet", model=model, keep=KEEP) if saved is None else DuetConfig.from_dict(saved)
    if not isinstance(config, DuetConfig):
        raise DuetError(f"config {_shown(config)} is no DuetConfig: make one, for example with DuetConfig.preset.")
    with unchanged(model):
        applying.apply(model, config, tokenizer=processor).remove()
    return config, model


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})" if isinstance(value, (str, int, float)) else type(value).__name__


def _about(model: Any, config: DuetConfig) -> dict[str, Any]:
    decoder = decoder_of(model)
    return {
        "model": type(model).__name__,
        "versions": versions(),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": str(getattr(decoder.config, "_attn_implementation", "unknown")),
        "layers": len(decoder.layers),
        "config": config.to_dict(),
    }
