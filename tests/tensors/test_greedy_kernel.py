"""The greedy kernels choose what torch's loops do: on a GPU where there is one, in Triton's interpreter elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_choices import images
from rules import RULES

from duet_vlm.tensors import greedy as module
from duet_vlm.tensors.greedy_loops import together

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton comes with CUDA's torch")
SCRIPT = Path(__file__).parents[1] / "support" / "kernel_choices.py"


@pytest.fixture(scope="module")
def kernels() -> dict[str, Any]:
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    ran = subprocess.run([sys.executable, SCRIPT], env=os.environ | interpreted, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", RULES)
def test_the_kernel_chooses_what_the_loop_chooses(
    kernels: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "alone", together)
    for case, (direction, a, count) in images().items():
        assert kernels["places"][name][case] == module.greedy(RULES[name](a), direction, count).tolist(), case
    assert [row[-1] for row in kernels["places"][name]["broken"]] == [4, 7]
    assert kernels["places"][name]["same"] == [[0, 1, 2, 3, 4]] * 2


def test_no_more_operations_are_started_for_more_tokens(kernels: dict[str, Any]) -> None:
    few, many = kernels["operations"]
    assert few == many
