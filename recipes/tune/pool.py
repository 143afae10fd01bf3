"""Answer a pool of fresh questions once under every setting, so that a choice among them can be repeated by look-up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from duet_vlm import apply
from duet_vlm.demo.evaluate import HELD_OUT_SEED, demo_prompt, examples
from duet_vlm.demo.model import load
from duet_vlm.demo.vocabulary import IDS
from duet_vlm.errors import DuetError
from duet_vlm.evaluation.runs import Run, full_model
from duet_vlm.tuning.candidates import candidates

KEEP = {"duet-plus": (0.33, 0.22, 0.11, 0.05), "visionzip": (0.22,)}  # early drops come with them
BATCH = 36


def main(
    out: Annotated[Path, typer.Option(help="JSON lines file, a batch a line; it goes on where it was stopped.")],
    seed: Annotated[int, typer.Option(help="Of the scenes.")] = 555_101,
    questions: Annotated[int, typer.Option(help="How many, an equal number per skill.", min=9)] = 3000,
) -> None:
    """Ask the demonstration model, full and under every candidate: the first token, and its lead over the second."""
    if seed == HELD_OUT_SEED:
        raise DuetError(f"seed {seed} is that of the published benchmark: choose another.")
    model, processor = load()
    runs = [full_model()]
    for method, keep in KEEP.items():
        runs += candidates(model.config, [method], keep)[0]
    asked = [(n, scene, q) for n, (scene, group) in enumerate(examples(seed, questions)) for q in group]
    done = len(out.read_bytes().splitlines()) if out.exists() else 0
    for start in range(done * BATCH, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        inputs = processor(
            images=[scene.image for _, scene, _ in batch], text=[demo_prompt(q.text) for _, _, q in batch],
            return_tensors="pt", padding=True, padding_side="left",
        )  # fmt: skip
        line = {
            "sources": [n for n, _, _ in batch],
            "skills": [q.skill for _, _, q in batch],
            "right": [IDS[q.answer] for _, _, q in batch],
            "settings": {run.label: answer(model, processor, inputs, run) for run in runs},
        }
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def answer(model: Any, processor: Any, inputs: Any, run: Run) -> dict[str, Any]:
    """The batch's first tokens, their leads, and the tokens in every layer, which all images of one size share."""
    with apply(model, run.config, tokenizer=processor) as handle, torch.inference_mode():
        logits = model(**inputs, logits_to_keep=1).logits[:, -1]
        trace = handle.trace
    first, second = logits.float().softmax(-1).topk(2).values.unbind(-1)
    counts = {tuple(sample.tokens_per_layer) for sample in trace.samples} if trace else {(196,) * handle.layers}
    return {
        "answers": logits.argmax(-1).tolist(),
        "margins": [round(one, 4) for one in (first - second).tolist()],
        "tokens": list(counts.pop()),
    }


if __name__ == "__main__":
    typer.run(main)
