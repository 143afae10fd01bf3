"""A plug-in for lmms-eval: the model `duet_hf`, and tasks that lmms-eval lacks.

`lmms_eval` is imported where it is used, so that this package can be read without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

TASKS = Path(__file__).parent / "tasks"
"""Folder of the tasks shipped here, for `--include_path`."""


def manifest() -> Any:
    """What the entry point `lmms_eval.models` hands to lmms-eval: a `ModelManifest` with a chat model."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="duet_hf", chat_class_path=f"{__name__}.model.DuetHF")


__all__ = ["TASKS", "manifest"]
