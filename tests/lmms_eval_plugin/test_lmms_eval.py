"""The plug-in under the real lmms-eval 0.7: its answers, what it logs, its tasks, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: pip install 'duet-vlm[lmms-eval]'")

import datasets
import lmms_eval
from datasets import Dataset, DatasetDict
from lmms_cases import caches, run
from lmms_eval import models
from lmms_eval.api.metrics import mean
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager
from typer.testing import CliRunner

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.cli.main import app
from duet_vlm.demo.model import folder as demo_folder
from duet_vlm.demo.model import load
from duet_vlm.inputs.prompts import prompt as plain_prompt
from duet_vlm.lmms_eval import TASKS
from duet_vlm.lmms_eval.measures import LOGGED
from duet_vlm.lmms_eval.model import DuetHF
from duet_vlm.lmms_eval.tasks.duet_demo.drawn import records

__all__ = ["caches"]
pytestmark = pytest.mark.usefixtures("caches")

QUESTIONS = 12


@cache
def alone(method: str, **budget: float) -> list[dict[str, Any]]:
    """The first questions one by one through `apply` and `generate`, with the cache that they leave."""
    model, processor = load()
    found = []
    config = DuetConfig.preset(method, model=model, **budget)
    with duet_vlm.apply(model, config, tokenizer=processor) as handle:
        for record in list(records().values())[:QUESTIONS]:
            text = plain_prompt(processor, record.question)
            inputs = processor(images=record.image(), text=text, return_tensors="pt")
            out = model.generate(**inputs, do_sample=False, max_new_tokens=4, return_dict_in_generate=True)
            written = out.sequences[0, inputs["input_ids"].shape[1] :]
            keys = [layer.keys for layer in out.past_key_values.layers]
            # the last token was never fed back
            stored = [k[:, :, : k.shape[2] - len(written) + 1] for k in keys]
            found.append(
                {"id": record.id, "answer": processor.decode(written, skip_special_tokens=True).strip(),
                 "right": record.expected[0], "written": len(written),
                 "counts": [196] * 12 if handle.trace is None else handle.trace.samples[0].tokens_per_layer,
                 "kv_bytes": sum(2 * k.numel() * k.element_size() for k in stored)}
            )  # fmt: skip
    return found


def test_lmms_eval_finds_the_model_and_the_tasks() -> None:
    assert models.get_model("duet_hf") is DuetHF
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    assert set(manager.all_tasks) == {"duet_demo", "msvd_qa", "msrvtt_qa", "tgif_qa"}


@pytest.mark.parametrize(
    ("method", "budget", "batch_size"),
    [("duet", {"keep": 0.33}, 1), ("duet", {"keep": 0.33}, 5), ("fastv", {"tokens": 64}, 12), ("none", {}, 5)],
)
def test_answers_and_costs_are_those_of_apply_and_generate(
    method: str, budget: dict[str, float], batch_size: int
) -> None:
    results = run("duet_demo", batch_size, QUESTIONS, pretrained="demo", method=method, **budget)
    expected = alone(method, **budget)
    samples = results["samples"]["duet_demo"]
    assert [s["doc"]["id"] for s in samples] == [e["id"] for e in expected]
    assert [s["filtered_resps"] for s in samples] == [[e["answer"]] for e in expected]
    right = mean([e["answer"] == e["right"] for e in expected])
    assert results["results"]["duet_demo"]["exact_match,none"] == pytest.approx(right)
    logged = [s["token_counts"][0] for s in samples]
    for one, e in zip(logged, expected, strict=True):
        counts = e["counts"]
        assert (one["tokens_in"], one["tokens_last"]) == (counts[0], counts[-1])
        assert one["tokens_avg"] == pytest.approx(sum(counts) / len(counts))
        assert one["kv_bytes"] == e["kv_bytes"]
        assert one["output_tokens"] == e["written"]
        assert one["prefill_ms"] > 0
    for name in LOGGED:
        assert results["throughput"][f"avg_{name}"] == pytest.approx(mean([one[name] for one in logged]))


def test_the_command_writes_it_all_into_its_results(tmp_path: Path) -> None:
    arguments = f"pretrained={demo_folder()},method=duet,keep=0.33,dtype=float32"
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "duet_hf", "--model_args", arguments, "--log_samples",
        "--include_path", str(TASKS), "--tasks", "duet_demo", "--limit", "6", "--batch_size", "3",
        "--output_path", str(tmp_path),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(next(tmp_path.rglob("*results.json")).read_text())
    expected = alone("duet", keep=0.33)[:6]
    assert results["throughput"]["avg_tokens_in"] == expected[0]["counts"][0]
    assert results["throughput"]["avg_kv_bytes"] == pytest.approx(mean([e["kv_bytes"] for e in expected]))
    assert {f"avg_{name}" for name in LOGGED} <= set(results["throughput"])
    samples = [json.loads(line) for line in next(tmp_path.rglob("*samples_duet_demo.jsonl")).read_text().splitlines()]
    assert [s["filtered_resps"] for s in samples] == [e["answer"] for e in expected]
    assert [s["token_counts"][0]["kv_bytes"] for s in samples] == [e["kv_bytes"] for e in expected]


def test_answers_are_those_of_duet_eval(tmp_path: Path) -> None:
    command = ["eval", "--methods", "none", "duet", "--keep", "0.33", "--limit", "9", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    told = {line["id"]: line for line in lines if line["method"] == "duet"}
    found = run("duet_demo", 4, QUESTIONS, pretrained="demo", keep=0.33)["samples"]["duet_demo"]
    samples = {sample["doc"]["id"]: sample for sample in found}
    both = told.keys() & samples.keys()
    assert len(both) >= 6
    for name in both:
        line, sample = told[name], samples[name]
        assert (sample["filtered_resps"], sample["exact_match"]) == ([line["answer"]], line["score"])
        logged = sample["token_counts"][0]
        assert [logged[key] for key in ("tokens_in", "tokens_avg", "tokens_last", "kv_bytes")] == [
            line[key] for key in ("tokens_in", "tokens_avg", "tokens_last", "kv_bytes")
        ]


# ---- the field's benchmarks, from lmms-eval's own task files, on hand-made documents ----


def documents(name: str) -> Any:
    """Two documents with the columns of a published benchmark; the pictures are scenes."""
    asked = list(records().values())[:2]
    rows = []
    for i, record in enumerate(asked):
        row = {"image": record.image(), "question": record.question, "question_id": str(i)}
        if name == "GQA":
            row |= {"imageId": str(i), "id": str(i), "answer": record.expected[0]}
        elif name == "textvqa":
            row |= {"answers": [record.expected[0]] * 10, "ocr_tokens": ["a"], "answer": ""}
        elif name == "POPE":
            row |= {"answer": ("no", "yes")[i]}
        elif name == "MME":
            row |= {"question_id": "color/1.png", "category": "color", "answer": ("No", "Yes")[i]}
        else:
            row |= {"hint": "", "choices": ["red", "blue"], "answer": i}
        rows.append(row)
    split = Dataset.from_list(rows)
    return DatasetDict(dict.fromkeys(("test", "testdev", "validation"), split))


def test_the_benchmarks_of_the_field_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, name: str | None = None, split: str | None = None, **_: Any) -> Any:
        found = documents(path.split("/")[-1])
        return found if split is None else found[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    mapped = Dataset.map
    monkeypatch.setattr(Dataset, "map", lambda self, function, num_proc=None, **more: mapped(self, function, **more))
    folder = Path(lmms_eval.__file__).parent / "tasks"
    tasks = {"gqa": "gqa", "textvqa_val": "textvqa", "pope": "pope", "mme": "mme", "scienceqa_img": "scienceqa"}
    manager = TaskManager(include_path=[str(folder / name) for name in tasks.values()], include_defaults=False)
    results = simple_evaluate(
        "duet_hf", "pretrained=demo,keep=0.33", tasks=list(tasks), task_manager=manager, batch_size=2, log_samples=True,
        bootstrap_iters=10, cli_args=SimpleNamespace(output_path=str(tmp_path), process_with_media=True),
    )  # fmt: skip
    assert set(results["results"]) == set(tasks)
    for task in tasks:
        for sample in results["samples"][task]:
            assert sample["filtered_resps"][0]
            assert sample["token_counts"][0]["tokens_in"] == 104
        # several tasks in one run: their means stand apart too
        assert results["throughput"][f"avg_{task}/tokens_in"] == 104
        assert results["throughput"][f"avg_{task}/kv_bytes"] > 0
    answers = [s["filtered_resps"][0] for s in results["samples"]["pope"]]
    told = mean([a == e for a, e in zip(answers, ("no", "yes"), strict=True)])
    assert results["results"]["pope"]["pope_accuracy,none"] == pytest.approx(told)
