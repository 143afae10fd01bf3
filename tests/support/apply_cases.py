"""Settings for `apply`, and whether a model is as it was."""

from __future__ import annotations

from typing import Any

from duet_vlm import Drop, DuetConfig

CONFIG = DuetConfig(dominant=9, contextual=3, drops=[Drop(2, 0.5)])


def untouched(model: Any) -> bool:
    hooked = any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    return not hooked and not hasattr(model.config, "duet")
