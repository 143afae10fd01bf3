"""Compare `coverage` with a fixed budget of the same mean tokens, on scenes whose numbers of objects vary.

`python -m recipes.coverage.measure --out results/coverage/scenes.json` takes some minutes on two cores. The share that
meets a mean is chosen on the pictures of some validation scenes, without questions, and compared on others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.demo.evaluate import VALIDATION_SEED, demo_prompt
from duet_vlm.demo.model import load
from duet_vlm.demo.questions import SKILLS, Question, ask
from duet_vlm.demo.scenes import Scene, make_scene
from duet_vlm.demo.vocabulary import IDS
from duet_vlm.evaluation.statistics import difference, resampled_means
from duet_vlm.stage1 import Encoded, Merge, selected
from duet_vlm.stage1.common import chosen, directions
from duet_vlm.tensors.covering import covered
from duet_vlm.tensors.greedy_rules import Worth

BANDS = ((2, 4), (8, 10), (12, 16))  # objects of a scene, from and to
METHODS = {"scope": (8, 14, 22), "scope+duet": (13, 22), "divprune": (14,)}  # tokens that enter, on average
RULES: dict[str, Callable[[Encoded], Worth]] = {
    "scope": lambda encoded: Worth(cover=encoded.scores, floor=0.0),
    "divprune": lambda encoded: Worth(distance=1.0, lonely=True),
}
FLOOR = 4


@dataclass
class Asked:
    """A scene with its questions, and the band of its number of objects."""

    source: str
    band: int
    scene: Scene
    questions: list[Question]


def drawn(first: int, count: int) -> Iterator[Asked]:
    """`count` scenes of every band, from number `first` of the validation split on."""
    for index in range(first, first + count):
        for band, (fewest, most) in enumerate(BANDS):
            rng = np.random.default_rng((VALIDATION_SEED, index, band))
            scene = make_scene(rng, fewest, most)
            yield Asked(f"{band}-{index}", band, scene, [q for q in ask(rng, scene, SKILLS) if q is not None])


def entering(model: Any, processor: Any, config: DuetConfig, scenes: list[Asked]) -> list[int]:
    """Tokens of every scene that enter the language model."""
    counts = []
    with duet_vlm.apply(model, replace(config, drops=()), tokenizer=processor) as handle:
        for start in range(0, len(scenes), 16):
            part = scenes[start : start + 16]
            text = [demo_prompt("what is there ?")] * len(part)
            inputs = processor(images=[one.scene.image for one in part], text=text, return_tensors="pt", padding=True)
            with torch.inference_mode():
                model(**inputs, logits_to_keep=1)
            assert handle.trace is not None
            counts += [sample.tokens_per_layer[0] for sample in handle.trace.samples]
    return counts


def answered(model: Any, processor: Any, config: DuetConfig, scenes: list[Asked]) -> list[bool]:
    """Whether each question is answered right, in order."""
    pairs = [(one.scene, question) for one in scenes for question in one.questions]
    right: list[bool] = []
    with duet_vlm.apply(model, config, tokenizer=processor):
        for start in range(0, len(pairs), 36):
            part = pairs[start : start + 36]
            inputs = processor(
                images=[scene.image for scene, _ in part], text=[demo_prompt(q.text) for _, q in part],
                return_tensors="pt", padding=True, padding_side="left",
            )  # fmt: skip
            with torch.inference_mode():
                found = model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
            right += [token == IDS[question.answer] for token, (_, question) in zip(found, part, strict=True)]
    return right


def curves(model: Any, processor: Any, method: str, scenes: list[Asked]) -> list[np.ndarray]:
    """How much of every scene the first tokens of a method cover, of as many as it has."""
    found: list[np.ndarray] = []

    def note(encoded: Encoded, dominant: int, contextual: int, cluster_width: int) -> Merge:
        order = chosen(encoded, RULES[method](encoded), encoded.tokens)
        found.append(covered(directions(encoded.features), order).numpy())
        return selected(encoded, order[:, :dominant])

    with duet_vlm.apply(model, DuetConfig(dominant=2, merging=note), tokenizer=processor):
        for one in scenes:
            inputs = processor(images=one.scene.image, text=demo_prompt("what is there ?"), return_tensors="pt")
            with torch.inference_mode():
                model(**inputs, logits_to_keep=1)
    return found


def share_for(found: list[np.ndarray], mean: float) -> float:
    """The share whose mean count over these scenes, CLS and the floor included, comes the nearest to `mean`."""
    tried = np.linspace(0.005, 1, 400)
    counts = [np.mean([max(FLOOR, 2 + int((curve < share).sum())) for curve in found]) for share in tried]
    return float(tried[np.abs(np.array(counts) - mean).argmin()])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="a folder of a model of scenes; the shipped one if not given")
    parser.add_argument("--scenes", type=int, default=20, help="of every band that are asked about")
    parser.add_argument("--chosen-on", type=int, default=12, help="of every band that the share is chosen on")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load() if given.model is None else load(given.model)
    before, scenes = list(drawn(0, given.chosen_on)), list(drawn(1000, given.scenes))
    sources = [one.source for one in scenes for _ in one.questions]
    bands = [one.band for one in scenes]
    weights = [len(one.questions) for one in scenes]
    full = answered(model, processor, DuetConfig(), scenes)
    rows = []
    for method, means in METHODS.items():
        found = curves(model, processor, method.partition("+")[0], before)
        for mean in means:
            whole = DuetConfig.preset(method, model=model, coverage=1.0, coverage_floor=FLOOR)
            share = share_for(found, mean)
            config = replace(whole, coverage=share)
            counts = entering(model, processor, config, scenes)
            average = float(np.average(counts, weights=weights))
            fixed = replace(whole, coverage=None, coverage_floor=1, dominant=round(average))
            scores = np.array([answered(model, processor, one, scenes) for one in (config, fixed)], float)
            points, ci = difference(scores, resampled_means(scores, sources, 0), 0, 1)
            by_band = [float(np.mean([n for n, b in zip(counts, bands, strict=True) if b == i])) for i in range(3)]
            rows.append({
                "method": method, "coverage": share, "floor": FLOOR, "entering": average, "by_objects": by_band,
                "fewest": min(counts), "most": max(counts), "fixed_count": round(average),
                "accuracy": scores[0].mean(), "fixed_accuracy": scores[1].mean(), "points": points, "ci95": ci,
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
            given.out.write_text(json.dumps({
                "seed": VALIDATION_SEED, "objects": BANDS, "questions": len(sources), "scenes": len(scenes),
                "full_accuracy": float(np.mean(full)), "rows": rows,
            }, indent=1) + "\n", encoding="utf-8")  # fmt: skip


if __name__ == "__main__":
    main()
