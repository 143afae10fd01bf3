"""Qwen3.5 and 3.6, dense and with experts: the tower of Qwen3-VL without deepstack, and a hybrid decoder.

Three of four decoder layers are linear (Gated DeltaNet), and the engine hands them what is kept as it comes; the fourth
has gated attention, which ranks. Positions have three axes, interleaved, and stay.
"""

from __future__ import annotations

from .qwen3_vl import Qwen3VL


class Qwen35(Qwen3VL, model_types=("qwen3_5", "qwen3_5_moe")):
    """All that differs is the decoder."""
