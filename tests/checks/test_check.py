"""`duet_vlm.check` and `duet check`: sound models pass, and what cannot be checked is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import zoo
from check_cases import (
    BEAMS,
    BYTES,
    CACHED,
    COUNTS,
    FAILED,
    OFF,
    PROMISES,
    REMOVED,
    TEXT,
    Processor,
    applied,
    beams_raise,
    checked,
    hooks_of,
    note,
    of_stock,
    results,
)
from matrix import settings
from saved import PATCHES, save
from torch import nn
from typer.testing import CliRunner

import duet_vlm
from duet_vlm import DuetConfig, DuetError
from duet_vlm.checks import counts
from duet_vlm.cli.main import app

# ---- sound models ----


MANY = [name for name in zoo.SEEING if name not in ("llava", "llava_mistral", "qwen2_5_vl", "gemma3", "idefics3")]


@pytest.mark.parametrize(
    "family", ["llava", "qwen2_5_vl", "gemma3", *(pytest.param(name, marks=pytest.mark.long) for name in MANY)]
)
def test_every_promise_holds_for_every_family(family: str) -> None:
    report = checked(zoo.build(family), family)
    assert results(report) == dict.fromkeys(PROMISES, "holds"), str(report)
    assert report.holds and not report.failing


@pytest.mark.parametrize(("attention", "dtype"), [("eager", torch.bfloat16), ("sdpa", torch.float16)])
def test_half_precision_and_eager_hold_within_their_own_rounding(attention: str, dtype: torch.dtype) -> None:
    report = checked(zoo.build("qwen2_5_vl", attention, dtype), "qwen2_5_vl")
    assert report.holds, str(report)
    assert report.about["dtype"] == str(dtype).removeprefix("torch.") and report.about["attention"] == attention
    full = checked(zoo.build("qwen2_5_vl"), "qwen2_5_vl")
    allowed = [{line.promise: line.allowed for line in made.lines} for made in (report, full)]
    assert allowed[0][CACHED] > 100 * allowed[1][CACHED] > 0  # type: ignore[operator]


@pytest.mark.parametrize("name", ["stage 1 alone", "stage 2 alone", "proportional"])
def test_other_settings_hold(name: str) -> None:
    assert checked(zoo.build("llava"), config=settings("llava", name)).holds


def test_settings_that_compress_nothing_leave_counts_unchecked_and_say_so() -> None:
    report = checked(zoo.build("llava"), config=DuetConfig())
    assert {p for p, result in results(report).items() if result == "not checked"} == {COUNTS, BYTES}
    assert note(report, COUNTS) == "these settings compress nothing"
    assert report.holds


def test_settings_come_from_the_model_or_are_a_third_of_the_tokens() -> None:
    model = zoo.build("llava")
    first = duet_vlm.check(model, Processor("llava"))
    assert first.about["config"] == DuetConfig.preset("duet", model=model, keep=1 / 3).to_dict()
    model.config.duet = settings("llava").to_dict()
    assert duet_vlm.check(model, Processor("llava")).about["config"] == settings("llava").to_dict()
    assert model.config.duet == settings("llava").to_dict()


def test_the_model_is_left_as_it_was() -> None:
    model = zoo.build("llava").train()
    model.model.vision_tower.eval()
    model.generation_config.num_beams = 2
    mine = model.register_forward_hook(lambda *_: None)
    before = ([m.training for m in model.modules()], hooks_of(model), model.generation_config, torch.get_rng_state())
    assert checked(model).holds
    after = ([m.training for m in model.modules()], hooks_of(model), model.generation_config, torch.get_rng_state())
    assert after[0] == before[0] and [h for h in after[1] if not of_stock(h)] == before[1]
    assert after[2] is before[2] and torch.equal(after[3], before[3])
    assert model.generation_config.num_beams == 2 and not hasattr(model.config, "duet")
    mine.remove()


def test_the_model_is_used_and_checked_again_afterwards() -> None:
    model, batch = zoo.build("llava"), zoo.inputs("llava", ((5, "i", 9), (4,)))
    assert checked(model).holds and checked(model).holds
    with torch.no_grad():
        used, fresh = model(**batch, output_hidden_states=True), zoo.build("llava")(**batch, output_hidden_states=True)
    assert torch.equal(used.logits, fresh.logits) and len(used.hidden_states) == len(fresh.hidden_states)


def test_two_equal_calls_that_differ_leave_bit_for_bit_unchecked() -> None:
    model = zoo.build("llava")
    model.lm_head.register_forward_hook(lambda m, a, out: out + 1e-7 * torch.rand(1))
    report = checked(model)
    unchecked = {p for p, result in results(report).items() if result == "not checked"}
    assert unchecked == {OFF, TEXT, REMOVED, FAILED} and "between two equal calls" in note(report, OFF)


# ---- the parts ----


@pytest.mark.parametrize("family", ["llava_next", "smolvlm", "llava_onevision", "qwen2_vl"])
def test_the_schedule_is_arithmetic_that_the_trace_agrees_with(family: str) -> None:
    model, row = zoo.build(family), Processor(family)("what is there ?", images=1)
    with duet_vlm.apply(model, settings(family), tokenizer=tiny.Words()) as handle, torch.no_grad():
        model(**row)
        trace = handle.trace
    assert trace is not None
    planned = counts.schedule(model, settings(family), row, trace.images, zoo.LAYERS)
    assert planned == trace.samples[0].tokens_per_layer
    assert planned[-1] < planned[0] < int((row["input_ids"] == zoo.IMAGE).sum())


def test_a_report_is_plain_data_and_reads_as_text() -> None:
    report = checked(zoo.build("llava"))
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["holds"] and [line["promise"] for line in data["lines"]] == list(PROMISES)
    assert set(data["versions"]) == {"duet_vlm", "torch", "transformers", "python"}
    assert f"holds: {CACHED}." in str(report)


# ---- what cannot be checked ----


def test_what_cannot_be_checked_is_refused_in_a_sentence() -> None:
    model, processor = zoo.build("llava"), Processor("llava")
    for arguments, said in [
        (("llava-hf/llava-1.5-7b-hf", processor), "model 'llava-hf/llava-1.5-7b-hf' (str) is no transformers model"),
        ((None, processor), "model NoneType is no transformers model"),
        ((nn.Linear(2, 2), processor), "model Linear is no transformers model"),
        ((model, "llava-hf/llava-1.5-7b-hf"), "processor 'llava-hf/llava-1.5-7b-hf' (str) is no processor"),
        ((model, None), "processor NoneType is no processor"),
        ((model, processor.tokenizer), "processor Tokenizer is no processor"),
        ((model, processor, {"dominant": 3}), "config dict is no DuetConfig"),
        ((model, processor, DuetConfig(drops=[duet_vlm.Drop(99, 0.5)])), "drop layer 99 is not possible"),
        ((zoo_text_model(), processor), "models of type 'llama' are not supported"),
    ]:
        with pytest.raises(DuetError) as error:
            duet_vlm.check(*arguments)  # type: ignore[arg-type]
        assert said in str(error.value) and "\n" not in str(error.value)
    with duet_vlm.apply(model, settings("llava"), tokenizer=tiny.Words()) as handle:
        with pytest.raises(DuetError, match="compressed already"):
            duet_vlm.check(model, processor)
        assert model.config.duet == handle.config.to_dict() and applied(model)
    assert not [hook for hook in hooks_of(model) if not of_stock(hook)]


def zoo_text_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**{**tiny.TEXT, "num_hidden_layers": 1}))


# ---- the command ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("check") / "model")


def duet(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["check", *(str(a) for a in arguments)], terminal_width=200)


def test_the_command_prints_a_table_with_versions(folder: Path) -> None:
    result = duet("--model", folder, "--device", "cpu")
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    for said in (f"duet-vlm {duet_vlm.__version__}", f"torch {torch.__version__}", "float32", "sdpa", "recomputed"):
        assert said in shown


def test_the_command_writes_figures_and_takes_settings(folder: Path, tmp_path: Path) -> None:
    result = duet("--model", folder, "--method", "visionzip", "--keep", 0.5, "--json", "-", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["dtype"] == "bfloat16" and report["config"]["merging"] == "visionzip"
    assert report["config"]["dominant"] + report["config"]["contextual"] == PATCHES // 2
    assert [line["promise"] for line in report["lines"]] == list(PROMISES)


def test_a_failing_promise_is_named_and_the_exit_status_is_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beams_raise(None, monkeypatch)
    result = duet("--model", folder)
    assert result.exit_code == 1
    assert result.stderr == f"duet: does not hold: {BEAMS}: RuntimeError: rows cannot be reordered\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "nowhere/at/all"], "is no folder"),
        (["--dtype", "int3"], "dtype 'int3' is unknown"),
        (["--device", "abacus"], "device 'abacus' is not available here"),
        (["--tokens", "5", "--keep", "0.5"], "are both a budget"),
        (["--method", "magic"], "method 'magic' is unknown"),
        (["--json", "nowhere/check.json"], "its folder does not exist"),
    ],
)
def test_what_the_command_cannot_check_is_a_sentence_and_status_2(options: list[str], said: str) -> None:
    result = duet(*options)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("duet: ") and said in result.stderr and result.stderr.count("\n") == 1


def test_the_demonstration_model_keeps_every_promise() -> None:
    result = duet("--json", "-", "--device", "cpu")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["checked"] == "the demonstration model" and report["holds"]
    assert {line["result"] for line in report["lines"]} == {"holds"}
