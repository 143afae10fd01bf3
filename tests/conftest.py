"""One thread, from which tiny models lose nothing; and the same draws every time, but in `make test-long`."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("same draws", derandomize=True)  # pytest --hypothesis-profile=default draws anew
settings.load_profile("same draws")


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
