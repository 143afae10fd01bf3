"""`duet bench`: its bytes, FLOPs and fields; times are read, never judged."""

from __future__ import annotations

import gc
import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from commands import heads
from typer.testing import CliRunner

from duet_vlm import Drop, DuetConfig, apply
from duet_vlm.cli.main import app
from duet_vlm.inputs.random_weights import random_model
from duet_vlm.inputs.shapes import shape_config
from duet_vlm.measuring import bench, timing
from duet_vlm.measuring.bench import Options, benchmark
from duet_vlm.measuring.settings import Setting, label, scaled, settings, shortened
from duet_vlm.measuring.workload import OneWordPerToken, Workload

QUICK = Options(runs=2, decode_steps=2, dtype="float32")
TIMES = ("encode_ms", "prefill_ms", "decode_ms")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "OVERHEAD_STEPS", 10)


def test_a_tiny_shape_has_the_bytes_and_flops_of_its_schedule(tmp_path: Path) -> None:
    """8 layers cut to 4: 64 + 13 tokens for a budget of 48, of 144; drops at 2 and 3."""
    file = tmp_path / "bench.json"
    result = CliRunner().invoke(
        app,
        ["bench", "--shape", "tiny", "--layers", "4", "--tokens", "48", "--runs", "1", "--decode-steps", "2",
         "--method", "duet", "--method", "visionzip", "--text-tokens", "20", "--dtype", "float32", "--device", "cpu",
         "--threads", "1", "--json", str(file)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "share of the ideal" in result.stdout
    assert heads(result.stdout)[2:] == ["duet 48", "visionzip 48"]
    report = json.loads(file.read_text())
    duet, visionzip = report["settings"]
    counts = [77, 77, 38, 0]
    assert duet["tokens_per_layer"] == counts and duet["tokens_average"] == 48
    assert visionzip["tokens_per_layer"] == [48] * 4 and visionzip["rankings"] == []

    def flops(tokens: list[int]) -> int:
        layer = 4 * 64 * 64 + 3 * 64 * 128
        return sum(2 * n * layer + 2 * n * n * 64 for n in tokens) + 2 * 64 * 1000

    assert duet["flops_ratio"] == flops([164] * 4) / flops([n + 20 for n in counts])
    for row, total in ((report["stock"], 4 * 164), (duet, sum(counts) + 80), (visionzip, 4 * 68)):
        assert row["kv_bytes"] == row["kv_bytes_expected"] == total * 2 * 64 * 4
        assert all(row[name] > 0 for name in TIMES)
    for row in (duet, visionzip):
        assert row["share"] == row["prefill_speedup"] / row["flops_ratio"]
        assert row["stage1_ms"] > 0 and row["stage1_over_tower"] > 0
        assert row["prefill_speedup_range"][0] <= row["prefill_speedup_range"][1]
        assert isinstance(row["decode_us_per_layer"], float)
        assert row["peak_memory"] is None or row["peak_memory"] >= 0
    assert [ranking["layer"] for ranking in duet["rankings"]] == [2]
    assert duet["ranking_over_layer"] == duet["rankings"][0]["over_layer"] > 0
    assert 1 < duet["query_tokens"] < 15  # a third of the text after the image, and the last token
    assert report["model"] == "tiny" and report["options"]["layers"] == 4 and report["options"]["threads"] == 1
    assert set(report["versions"]) == {"duet_vlm", "torch", "transformers", "python"}
    assert report["hardware"]["device"] == "cpu" and report["hardware"]["threads"] == 1


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_families_methods_and_batches(family: str) -> None:
    model = tiny.build(family)
    listed = [Setting("stock", None, DuetConfig())] + [
        Setting("hand", 0, config)
        for config in (
            DuetConfig(12, 3, drops=[Drop(2, 0.5), Drop(4, 0.0)]),
            DuetConfig(drops=[Drop(2, 0.5, rank_at=1)], query="last"),
        )
    ]
    seen: list[str] = []
    options = Options(runs=2, batch_size=2, text_tokens=12, decode_steps=1, dtype="float32")
    report = benchmark(model, listed, options, seen.append)
    assert len(seen) == bench.steps(listed, options)
    assert seen[:4] == ["stock, warm-up", "hand 0, warm-up", "hand 0, warm-up", "stock, run 1"]
    for row in [report["stock"], *report["settings"]]:
        assert row["kv_bytes"] == row["kv_bytes_expected"]
    crops, whole = (1, 36) if family == "llava" else (3, 36 + 6 * 13)
    assert report["settings"][0]["tokens_per_layer"] == [15 * crops] * 2 + [15 * crops // 2] * 2 + [0]
    assert report["settings"][1]["tokens_per_layer"] == [whole] * 2 + [whole // 2] * 3
    assert [r["layer"] for r in report["settings"][1]["rankings"]] == [1]
    hooks = [h for m in model.modules() for h in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    assert not [h for h in hooks if h.__module__.startswith("duet_vlm")]


def test_settings_scale_published_drops() -> None:
    config = shape_config("llava-1.5-7b")
    listed = settings(config, ["duet", "pyramiddrop", "fastv"], [192, 160], layers=8)
    assert [label(s) for s in listed] == [
        "stock", "duet 192", "duet 160", "pyramiddrop 192", "pyramiddrop 160", "fastv 192", "fastv 160",
    ]  # fmt: skip
    assert listed[1].config == DuetConfig(300, 7, drops=[Drop(4, 0.5), Drop(6, 0.0)])
    published = settings(config, ["duet"], [128], layers=8)[1].config
    assert published == DuetConfig(170, 35, drops=[Drop(4, 0.5), Drop(6, 0.0)])
    assert [d.layer for d in listed[3].config.drops] == [2, 4, 6]
    assert [(d.layer, d.rank_at) for d in listed[5].config.drops] == [(1, 0)]
    assert settings(config, ["duet"], [192])[1].config == DuetConfig.preset("duet", model=config, tokens=192)
    assert scaled(DuetConfig(drops=[Drop(16, 0.5), Drop(24, 0.0)]), 32, 2).drops == (Drop(1, 0.0),)


def test_a_hybrid_decoder_with_fewer_layers_drops_where_it_can_rank() -> None:
    config = shape_config("qwen3.5-9b")
    eight = settings(config, ["duet"], [], layers=8, keep=[0.33])[1].config
    assert [(d.layer, d.keep) for d in eight.drops] == [(4, 0.5), (7, 0.25)]  # 6 would be between 3 and 7
    four = settings(config, ["duet"], [], layers=4, keep=[0.33])[1].config
    assert [(d.layer, d.keep) for d in four.drops] == [(3, 0.25)]
    assert shortened(config, 8).text_config.layer_types == config.text_config.layer_types[:8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "llava-2"], "shape 'llava-2' is unknown"),
        ([], "give one of --model, a folder or hub id, and --shape"),
        (["--shape", "tiny", "--layers", "9"], "layers 9 is not possible: this model has 8 decoder layers"),
        (["--model", ".", "--layers", "2"], "--layers 2 needs --shape"),
        (["--shape", "tiny", "--tokens", "4000"], "cannot meet a budget of 4000 tokens here"),
        (["--shape", "tiny", "--method", "magic"], "method 'magic' is unknown"),
        (["--shape", "tiny", "--tokens", "48", "--dtype", "int3"], "dtype 'int3' is unknown"),
        (["--shape", "tiny", "--tokens", "48", "--device", "abacus"], "device 'abacus' is not available here"),
        (["--shape", "tiny", "--tokens", "48", "--json", "nowhere/b.json"], "its folder does not exist"),
    ],
)
def test_bench_refuses_in_one_line_what_it_cannot_measure(options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", *options])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("duet: ") and message in result.stderr


def test_random_weights_are_what_they_are_said_to_be() -> None:
    model = random_model(shape_config("tiny"), "bfloat16", "cpu")
    weight = model.model.language_model.layers[3].mlp.up_proj.weight.float()
    assert weight.shape == (128, 64) and abs(weight.mean()) < 0.002 and 0.018 < weight.std() < 0.022
    assert not torch.equal(weight, model.model.language_model.layers[3].mlp.gate_proj.weight.float())
    assert (model.model.language_model.norm.weight == 1).all()
    assert (model.model.vision_tower.encoder.layers[0].layer_norm1.bias == 0).all()
    assert not model.training and model.dtype == torch.bfloat16
    assert torch.isfinite(model.model.language_model.rotary_emb.inv_freq).all()


def test_time_in_hooks_sees_this_package_alone() -> None:
    model = tiny.build()
    work = Workload(model, 1, 8)
    calls: list[Any] = []
    model.model.vision_tower.register_forward_pre_hook(lambda *_: calls.append(1))
    with timing.time_in_hooks(work.core, timing.Clock("cpu")) as stock:
        work.encode()
    with apply(model, DuetConfig(10, 4), tokenizer=OneWordPerToken()):
        before = [dict(m._forward_pre_hooks) | dict(m._forward_hooks) for m in model.modules()]
        with timing.time_in_hooks(work.core, timing.Clock("cpu")) as seconds:
            work.encode()
        assert before == [dict(m._forward_pre_hooks) | dict(m._forward_hooks) for m in model.modules()]
    assert stock == [] and len(calls) == 2
    assert len(seconds) >= 2 and all(s >= 0 for s in seconds)


def test_peak_memory_sees_what_was_in_use() -> None:
    gc.collect()  # or what other tests left might be freed meanwhile
    memory = timing.PeakMemory("cpu")
    memory.start()
    with mmap.mmap(-1, 120_000_000) as block:  # an allocator may hand out what it kept, which is in use already
        for _ in range(120):
            block.write(bytes(range(250)) * 4_000)
    peak = memory.read()
    if peak is None:
        pytest.skip("this system does not tell")
    assert 100e6 < peak < 400e6


def test_clock_reports_each_call() -> None:
    noted: list[tuple[float, tuple[Any, ...]]] = []
    work: Callable[[int], int] = timing.Clock("cpu").wrap(lambda x: x + 1, lambda s, a: noted.append((s, a)))
    assert work(3) == 4 and noted[0][1] == (3,) and noted[0][0] >= 0
