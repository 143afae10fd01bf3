"""Values that nobody should hand over and somebody does, and what a refusal must look like."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duet_vlm import Drop, DuetError


class BadRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no text of me")


class LongRepr:
    def __repr__(self) -> str:
        return "line\n" * 1000


deep: Any = []
for _ in range(500):
    deep = [deep]

VALUES: dict[str, Any] = {
    "None": None, "True": True, "False": False, "-1": -1, "0": 0, "1": 1, "3": 3, "0.5": 0.5, "1.0": 1.0, "2.5": 2.5,
    "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "1e400": 10**400, "-1e400": -(10**400), "1e5000": 10**5000,
    "empty": "", "digit": "2", "long": "x" * 5000, "lines": "a\nb\n", "bytes": b"5", "path": Path("a"), "list": [5],
    "no list": [], "pair": (3, 0.5), "tuple": (2, 2, 2, 2), "dict": {}, "half a drop": {"layer": 2}, "set": {1},
    "object": object(), "class": int, "function": len, "bad repr": BadRepr(), "long repr": LongRepr(), "deep": deep,
    "many": list(range(5000)), "int64": np.int64(3), "float32": np.float32(0.5), "bool_": np.bool_(True),
    "array": np.array([1, 2]), "tensor": torch.tensor(3), "matrix": torch.ones(3, 3), "decimal": Decimal("0.5"),
    "fraction": Fraction(1, 2), "complex": 1j, "drop": Drop(2, 0.5), "drops of all": [None, 5, {}, Drop(2, 0.5)],
    "error": ValueError("a\nb"),
}  # fmt: skip


def one_sentence(error: pytest.ExceptionInfo[BaseException] | BaseException) -> str:
    """The text of a refusal, which is a `DuetError` of one sentence."""
    found = error.value if isinstance(error, pytest.ExceptionInfo) else error
    text = str(found)
    assert isinstance(found, DuetError), repr(found)
    assert text.endswith(".") and "\n" not in text and len(text) < 260, text
    return text
