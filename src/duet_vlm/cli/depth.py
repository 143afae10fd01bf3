"""`duet budget --find-depth`: what it needs, and what it says. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..console import terminal
from ..errors import DuetError

MOST = 50  # prompts that are read
TOGETHER = 8


def find(model: str | None, data: Path | None, asked: bool) -> dict[str, Any]:
    """Measure the reading depth of a model on the prompts of a manifest, whose answers do not count.

    Raises:
        DuetError: no model or no manifest, one that cannot be read, or no prompt that can be asked.
    """
    if not asked:
        raise DuetError(f"--data {str(data)!r} is for --find-depth: give that too, or leave it out.")
    if model is None or data is None:
        raise DuetError("--find-depth measures a model on prompts: give --model and --data, a JSONL manifest.")
    with terminal.status() as status:
        from ..evaluation.answering import Asker
        from ..evaluation.evaluate import batches_of
        from ..evaluation.records import read_manifest
        from ..inputs.checkpoints import read_model
        from ..inputs.devices import check_device
        from ..measuring.depth import reading_depth

        records, problems = read_manifest(data, scored=False)
        if not records:
            raise DuetError(f"there is no prompt to measure on{f': {problems[0]}' if problems else '.'}")
        status("Loading the model")
        asker = Asker(*read_model(model, "auto", check_device(None)))
        parts = batches_of(records[:MOST], TOGETHER)
        status("Reading the prompts")
        batches = [asker.prepare(part, [asker.load_media(record) for record in part]).inputs for part in parts]
        depth = reading_depth(asker.model, batches)
    if depth.layer is None:
        words = f"{model} reads its images in all of its {depth.layers} layers ({depth.prompts} prompts): drop nothing."
    else:
        listed = ", ".join(f"Drop({drop.layer}, {drop.keep:g})" for drop in depth.drops)
        words = (
            f"{model} has read its images at layer {depth.layer} of {depth.layers} ({depth.prompts} prompts): "
            f"drops=[{listed}]"
        )
    return {
        "model": model, "prompts": depth.prompts, "layers": depth.layers, "depth": depth.layer, "words": words,
        "divergence": list(depth.divergence),
        "drops": [{"layer": drop.layer, "keep": drop.keep} for drop in depth.drops],
    }  # fmt: skip
