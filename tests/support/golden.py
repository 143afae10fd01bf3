"""Golden values of the published implementation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

FOLDER = Path(os.environ.get("DUET_PARITY", Path(__file__).parents[3] / "shared" / "parity"))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def golden(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return json.loads((FOLDER / f"{name}.json").read_text()), load_file(FOLDER / f"{name}.safetensors")


def weights(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix("weights."): v for k, v in values.items() if k.startswith("weights.")}
