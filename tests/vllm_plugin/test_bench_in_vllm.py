"""`duet bench --engine vllm` on the demonstration model: what it reports, never how fast anything was."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from commands import duet

from duet_vlm.serving.bench import measure
from duet_vlm.serving.bench.engines import opened


def test_the_demonstration_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PAUSE", 0)
    monkeypatch.setattr(measure, "WARM_UP", 1)
    # the tests keep vLLM in one process, the command does as a server does
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    file = tmp_path / "bench.json"
    result = duet(
        "bench", "--engine", "vllm", "--model", "demo", "--keep", "0.33", "--dtype", "float32", "--runs", "2",
        "--concurrency", "1", "2", "--requests", "2", "--decode-steps", "3", "--text-tokens", "24", "--json", file,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "2 requests at a time" in result.stdout
    report = json.loads(file.read_text(encoding="utf-8"))
    stock, (compressed,) = report["stock"], report["settings"]
    assert stock["tokens_per_layer"] == [196] * 12
    assert compressed["tokens_per_layer"] == [104] * 6 + [52] * 3 + [0] * 3
    assert stock["engine"]["architecture"] == "LlavaForConditionalGeneration"
    assert compressed["engine"]["architecture"] == "DuetLlavaForConditionalGeneration"
    assert stock["engine"]["prefix_caching"] and not compressed["engine"]["prefix_caching"]
    for row in (stock, compressed):
        assert [(at["concurrency"], at["requests"]) for at in row["at"]] == [(1, 4), (2, 8)]
        for at in row["at"]:
            assert all(at[name] > 0 for name in ("requests_per_s", "first_token_ms", "per_token_ms"))
    for at in compressed["at"]:
        low, high = at["requests_speedup_range"]
        assert 0 < low <= high
    assert report["options"]["concurrency"] == [1, 2] and report["options"]["engine"] == "vllm"
    assert {"vllm", "torch", "transformers", "duet_vlm"} <= set(report["versions"])


def test_an_engine_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    job = {"engine": {"model": str(tmp_path)}, "prompt_ids": [1], "image": [8, 8]}
    with opened() as start, pytest.raises(ValueError, match=r"^vLLM with stock ended \(") as told:
        start("stock", job, {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert "\n" not in str(told.value)
