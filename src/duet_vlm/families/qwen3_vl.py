"""Qwen3-VL: as Qwen2-VL, with early visual features (deepstack) that follow the kept places of stage 1 and 2."""

from __future__ import annotations

from .qwen2_5_vl import Qwen25VL


class Qwen3VL(Qwen25VL):
    """Each block attends across a whole frame; the decoder adds deepstack features after its first layers."""
