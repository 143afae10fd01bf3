"""One thread, from which tiny models lose nothing; and the same draws every time, but in `make test-long`."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
# no deadline: a machine that is busy is no reason to fail; pytest --hypothesis-profile=anew draws anew
settings.register_profile("same draws", derandomize=True, deadline=None)
settings.register_profile("anew", deadline=None)
settings.load_profile("same draws")

# rows of the zoo that are near to another row: `make test-families` runs their tests, `make test` those of the rest
NEAR = {
    "llava_mistral", "idefics3", "qwen2_vl", "qwen3_vl_moe", "qwen3_5_moe", "qwen2_5_omni_thinker",
    "qwen3_omni_moe_thinker", "glm4v", "glm4v_moe", "glm46v", "glm_ocr", "glm4v_video", "aya_vision", "cohere2_vision",
    "vipllava", "llava_next_video", "ovis2", "video_llama_3", "ministral3", "gemma4", "gemma4_moe", "gemma4_unified",
    "minicpmv4_6", "paddleocr_vl", "deepseek_vl", "deepseek_vl_hybrid", "janus", "qwen2_audio", "voxtral",
    "video_llava", "smolvlm", "llava_onevision", "minicpmv4_7", "mistral3",
}  # fmt: skip
# rows with a decoder or a tower of a kind of its own: `make test` holds the engine's matrix of them under sdpa, and
# `make test-families` everything else that the other rows are put through
MATRIX_ALONE = {
    "qwen3_vl", "omni_with_sound", "gemma4_shared", "paligemma", "llama4", "lfm2_vl", "internvl",
}  # fmt: skip
# the matrix, and a file that says itself which rows are near
BY_ROW = ("test_matrix.py", "test_methods_families.py")


def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What fixtures draw without a seed of their own is the same every time, whatever ran before."""
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """And what a test draws is the same, whether its fixtures were there already or not."""
    _seed()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        family, eager = parameters.get("family"), parameters.get("attention") == "eager"
        if family in NEAR or (family in MATRIX_ALONE and (eager or item.path.name not in BY_ROW)):
            item.add_marker(pytest.mark.near)


@pytest.fixture
def number_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolVLM's processor needs a package for one word."""
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", str)


@pytest.fixture
def own_methods() -> Iterator[None]:
    """What a test registers is gone afterwards."""
    from duet_vlm.config import registry

    tables: tuple[dict[str, Any], ...] = (registry.STAGE1, registry.RANKINGS, registry.SCHEDULES)
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)
