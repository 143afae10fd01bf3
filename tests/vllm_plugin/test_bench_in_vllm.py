"""`duet bench --engine vllm` on the demonstration model: what it reports, never how fast anything was."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import duet
from vllm_engine import FOLDER

from duet_vlm.inputs.shape_parts import Shape
from duet_vlm.inputs.shapes import SHAPES
from duet_vlm.serving.bench import measure
from duet_vlm.serving.bench.engines import opened


@pytest.fixture(autouse=True)
def as_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pauses; and the tests keep vLLM in one process, the command does as a server does."""
    monkeypatch.setattr(measure, "PAUSE", 0)
    monkeypatch.setattr(measure, "WARM_UP", 1)
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)


def reported(file: Path, *arguments: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What the command writes: all of it, stock's row and the compressed one's."""
    result = duet("bench", "--engine", "vllm", *arguments, "--keep", "0.33", "--dtype", "float32", "--json", file)
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text(encoding="utf-8"))
    (compressed,) = report["settings"]
    for row in (report["stock"], compressed):
        for at in row["at"]:
            assert all(at[name] > 0 for name in ("requests_per_s", "first_token_ms", "per_token_ms"))
    for at in compressed["at"]:
        low, high = at["requests_speedup_range"]
        assert 0 < low <= high
    return report, report["stock"], compressed


def test_the_demonstration_model(tmp_path: Path) -> None:
    report, stock, compressed = reported(
        tmp_path / "bench.json", "--model", "demo", "--runs", "2", "--concurrency", "1", "2", "--requests", "2",
        "--decode-steps", "3", "--text-tokens", "24",
    )  # fmt: skip
    assert stock["tokens_per_layer"] == [196] * 12
    assert compressed["tokens_per_layer"] == [104] * 6 + [52] * 3 + [0] * 3
    assert stock["engine"]["architecture"] == "LlavaForConditionalGeneration"
    assert compressed["engine"]["architecture"] == "DuetLlavaForConditionalGeneration"
    assert stock["engine"]["prefix_caching"] and not compressed["engine"]["prefix_caching"]
    for row in (stock, compressed):
        assert [(at["concurrency"], at["requests"]) for at in row["at"]] == [(1, 4), (2, 8)]
    assert report["options"]["concurrency"] == [1, 2] and report["options"]["engine"] == "vllm"
    assert {"vllm", "torch", "transformers", "duet_vlm"} <= set(report["versions"])


PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2,
    "size": {"shortest_edge": 1024, "longest_edge": 65536},
}  # fmt: skip
ONCE = ("--runs", "1", "--concurrency", "1", "--requests", "1", "--decode-steps", "1", "--text-tokens", "12")


@pytest.mark.parametrize("given", ["a folder", "a shape"])
def test_models_whose_images_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    if given == "a folder":
        model, name = ("--model", FOLDER / "qwen2_5_vl", "--image", "64x48"), "Qwen2_5_VLForConditionalGeneration"
        tokens = 48
    else:
        config = json.loads((FOLDER / "qwen3_vl" / "config.json").read_text(encoding="utf-8"))
        monkeypatch.setitem(SHAPES, "qwen3-vl-8b", Shape(config, PROCESSOR))
        model, name = ("--shape", "qwen3-vl-8b", "--layers", "4"), "Qwen3VLForConditionalGeneration"
        tokens = 576
    _, stock, compressed = reported(tmp_path / "bench.json", *model, *ONCE)
    assert set(stock["tokens_per_layer"]) == {tokens}
    counts = compressed["tokens_per_layer"]
    assert counts == sorted(counts, reverse=True) and tokens > counts[0] > counts[-1]
    assert [row["engine"]["architecture"] for row in (stock, compressed)] == [name, f"Duet{name}"]


def test_an_engine_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    job = {"engine": {"model": str(tmp_path)}, "prompt_ids": [1], "image": [8, 8]}
    with opened() as start, pytest.raises(ValueError, match=r"^vLLM with stock ended \(") as told:
        start("stock", job, {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert "\n" not in str(told.value)
