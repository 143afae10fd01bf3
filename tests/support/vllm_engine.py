"""Engines of vLLM for tests, in the test's own process, and the answers of the transformers engine to compare with."""

from __future__ import annotations

import functools
import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client import REGISTRY
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

FOLDER = Path(__file__).parents[2] / "build" / "vllm"
BLOCK = 32


@functools.cache
def references() -> dict[str, Any]:
    """What tests/support/vllm_references.py wrote."""
    found: dict[str, Any] = json.loads((FOLDER / "answers.json").read_text(encoding="utf-8"))
    return found


@contextmanager
def engine(model: str = "random", duet: dict[str, Any] | None = None, **options: Any) -> Iterator[LLM]:
    """An engine of one of the models there, which is gone at the end."""
    given = {"hf_overrides": {"duet": duet}} if duet is not None else {}
    settings: dict[str, Any] = {
        "model": str(FOLDER / model),
        "dtype": "float32",
        "max_model_len": 448,
        "max_num_seqs": 4,
        "block_size": BLOCK,
        "limit_mm_per_prompt": {"image": 2},
        "mm_processor_kwargs": {"backend": "pil"},  # the demonstration model's resampling is PIL's alone
    }
    llm = LLM(**settings | given | options)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


def request(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the references as vLLM is asked."""
    images = [Image.open(FOLDER / f"{number}.png").convert("RGB") for number in row["images"]]
    return {"prompt": row["prompt"]} | ({"multi_modal_data": {"image": images}} if images else {})


def greedy(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, logprobs=1)


def check(outputs: Sequence[Any], rows: Sequence[dict[str, Any]], within: float = 1e-5) -> None:
    """The same tokens, and their log-probabilities within a bound, as far as both go on."""
    assert len(outputs) == len(rows)
    for output, row in zip(outputs, rows, strict=True):
        made = output.outputs[0]
        ids = list(made.token_ids)
        assert ids == row["ids"][: len(ids)], row["prompt"]
        got = [step[token].logprob for step, token in zip(made.logprobs, ids, strict=True)]
        assert got == pytest.approx(row["logprobs"][: len(ids)], abs=within), row["prompt"]


@contextmanager
def counted(before: int, kept: float) -> Iterator[None]:
    """Inside, so many visual tokens are counted for `/metrics`: in, and kept on average over the layers."""

    def now() -> list[float]:
        return [
            REGISTRY.get_sample_value(f"duet_visual_tokens_{name}_total") or 0.0 for name in ("in", "kept", "saved")
        ]

    start = now()
    yield
    got = [end - begin for begin, end in zip(start, now(), strict=True)]
    assert got == pytest.approx([before, kept, before - kept])


def core_of(llm: LLM) -> Any:
    """vLLM's engine core, which runs in this process."""
    return llm.llm_engine.engine_core.engine_core


def model_of(llm: LLM) -> Any:
    return core_of(llm).model_executor.driver_worker.worker.model_runner.model


def scheduler_of(llm: LLM) -> Any:
    return core_of(llm).scheduler


def free_blocks(llm: LLM) -> tuple[int, int]:
    """KV blocks that are free, and how many there are (one is no block but the null one)."""
    pool = scheduler_of(llm).kv_cache_manager.block_pool
    return pool.get_num_free_blocks(), pool.num_gpu_blocks - 1
