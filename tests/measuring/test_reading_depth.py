"""Where a model reads its image: against a loop of its own, on drawn scenes, and what cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import one_sentence
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from duet_vlm import Drop, DuetConfig, DuetError, apply, reading_depth
from duet_vlm.cli.main import app
from duet_vlm.demo.evaluate import VALIDATION_SEED, demo_prompt, examples
from duet_vlm.demo.model import load
from duet_vlm.measuring.depth import schedule


@pytest.fixture(scope="module")
def demo() -> Any:
    return load()


@pytest.fixture(scope="module")
def prompts(demo: Any) -> list[Any]:
    """20 questions about validation scenes, three at a time."""
    asked = [(scene.image, demo_prompt(q.text)) for scene, group in examples(VALIDATION_SEED, 20) for q in group]
    parts = [asked[start : start + 3] for start in range(0, len(asked), 3)]
    return [
        demo[1](
            images=[image for image, _ in part], text=[text for _, text in part], return_tensors="pt", padding=True,
            padding_side="left",
        )
        for part in parts
    ]  # fmt: skip


def probabilities(model: Any, batch: Any, drops: list[Drop]) -> Tensor:
    """(B, V) float64, of the token behind each prompt."""
    with torch.no_grad(), apply(model, DuetConfig(drops=drops)):
        logits: Tensor = model(**batch).logits[:, -1]
    return logits.double().softmax(-1)


def test_the_depth_is_that_of_a_loop_over_prompts_and_layers(demo: Any, prompts: list[Any]) -> None:
    model, _ = demo
    depth = reading_depth(model, prompts)
    assert depth.prompts == 20 and depth.layers == 12 and len(depth.divergence) == 11
    with torch.no_grad():
        whole = [model(**batch).logits[:, -1].double().softmax(-1) for batch in prompts]  # stock
    for layer in (1, 3, 5, 8):
        apart = [
            float(p @ (p.log() - q.log()))
            for batch, ps in zip(prompts, whole, strict=True)
            for p, q in zip(ps, probabilities(model, batch, [Drop(layer, 0)]), strict=True)
        ]
        assert depth.divergence[layer - 1] == pytest.approx(sum(apart) / 20, rel=1e-3, abs=1e-6)
    first = next(number for number, apart in enumerate(depth.divergence, start=1) if apart < 0.01)
    assert depth.layer == first and 4 <= first <= 7
    assert depth.drops == (Drop(first // 2, 0.5), Drop(first, 0))
    assert DuetConfig.preset("duet", model=model, keep=0.33, drops=depth.drops).drops == depth.drops


def test_what_a_depth_means_as_a_schedule() -> None:
    assert schedule(6, (0.5, 0.0)) == (Drop(3, 0.5), Drop(6, 0))
    assert schedule(7, (0.5, 0.25)) == (Drop(3, 0.5), Drop(7, 0.25))
    assert schedule(1, (0.5, 0.0)) == (Drop(1, 0),)
    assert schedule(None, (0.5, 0.0)) == ()


def test_no_layer_is_deep_enough_for_a_threshold_that_nothing_meets(demo: Any, prompts: list[Any]) -> None:
    depth = reading_depth(demo[0], prompts[:1], threshold=1e-30)
    assert depth.layer is None and depth.drops == ()


def test_what_cannot_be_measured_is_refused(demo: Any, prompts: list[Any]) -> None:
    model, processor = demo
    right = {**prompts[0], "attention_mask": prompts[0]["attention_mask"].flip(1)}
    right["attention_mask"][0, -1] = 0
    text = processor(text="USER: what is this ? ASSISTANT:", return_tensors="pt")
    for batches, more, told in (
        ([], {}, "there is no prompt"),
        ([text], {}, "a prompt has no image"),
        ([right], {}, "padded on the right"),
        (prompts, {"threshold": 0}, "threshold 0 must be a number"),
    ):
        with pytest.raises(DuetError, match=told) as error:
            reading_depth(model, batches, **more)
        one_sentence(error)
    with apply(model, DuetConfig(dominant=9)), pytest.raises(DuetError, match="compressed already"):
        reading_depth(model, prompts)


def test_the_command_measures_on_a_manifest_without_answers(tmp_path: Path) -> None:
    lines = []
    for number, (scene, group) in enumerate(examples(VALIDATION_SEED, 9)):
        Image.fromarray(scene.image).save(tmp_path / f"{number}.png")
        lines += [json.dumps({"image": f"{number}.png", "question": question.text}) for question in group]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines[:4]))
    arguments = ["budget", "--model", "demo", "--find-depth", "--data", str(tmp_path / "prompts.jsonl")]
    report = json.loads(CliRunner().invoke(app, [*arguments, "--json", "-"]).stdout)
    assert report["prompts"] == 4 and report["layers"] == 12 and len(report["divergence"]) == 11
    first = next(layer for layer, apart in enumerate(report["divergence"], start=1) if apart < 0.01)
    assert report["depth"] == first and report["drops"][-1] == {"layer": first, "keep": 0.0}
    assert report["words"].endswith(f"drops=[Drop({first // 2}, 0.5), Drop({first}, 0)]")
