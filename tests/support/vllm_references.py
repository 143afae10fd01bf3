"""What the engine answers, for the tests of vLLM, which runs in an environment of its own: models and answers as files.

`python tests/support/vllm_references.py FOLDER` writes `answers.json` and the models `demo` (the demonstration model),
`random` (its shapes with random weights), `saved` (that one with its settings in its config) and `hub` (the same
weights under the names of older checkpoints, which stock vLLM reads), and what `vllm_qwen` writes.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny
import torch
import vllm_qwen
from PIL import Image
from safetensors.torch import load_file, save_file

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.demo.model import folder as demo_folder
from duet_vlm.demo.model import load

ROOT = Path(__file__).parents[2]
# images by number, and a question
PROMPTS = (
    ((0,), "What number is on the green circle?"),
    ((0, 1), "What color is the star?"),
    ((), "How many circles are there?"),
    ((2,), "What is above the star?"),
    ((1, 2), "What number is on the green circle?"),
    ((1,), "How many circles are there?"),
    ((2, 0), "What color is the background?"),
)
FEW = PROMPTS[:3]


BASE = DuetConfig(dominant=50, contextual=14, drops=[Drop(3, 0.6), Drop(5, 0.3, rank_at=4), Drop(9, 0.0)])
# what changes of BASE: every method of either stage, and what their options compute
CHANGES: dict[str, dict[str, Any]] = {
    "published": {},
    "merging": {"merging": "visionzip", "combine": "mean", "diverse": True, "query": "all"},
    "rest": {"merging": "holov", "rest": True, "query": "last", "debias": True},
    "divprune": {"merging": "divprune", "ranking": "sparsevlm", "query": "all"},
    "prumerge": {"merging": "prumerge", "ranking": "sparsevlm", "query": "all", "debias": True},
    "pool": {"merging": "pool", "ranking": "keynorm"},
    "uniform": {"merging": "uniform", "ranking": "random"},
    "random": {"merging": "random", "ranking": "random"},
    "tops": {"merging": "scope", "ranking": "tops", "query": "all"},
    "cdpruner": {"merging": "mmr", "ranking": "cdpruner", "query": "all"},
}


def settings(model: Any) -> dict[str, DuetConfig]:
    """The settings that are compared with random weights."""
    made = {name: DuetConfig.preset(name, model=model, keep=0.33) for name in ("duet", "visionzip", "pyramiddrop")}
    made["fastv"] = DuetConfig.preset("fastv", model=model, keep=0.5, positions="keep")
    made["stock"] = DuetConfig()
    return made | {f"methods/{name}": replace(BASE, **changes) for name, changes in CHANGES.items()}


def pictures() -> list[Image.Image]:
    scene = Image.open(ROOT / "examples" / "scene.png").convert("RGB")
    return [scene, scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT), scene.rotate(90)]


def random_model() -> Any:
    """Attention far from uniform, and no answer that ends after a word."""
    model, _ = load()
    tiny.randomize(model, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "language_model" in name and "embed" not in name:
                parameter.mul_(0.5)
    model.generation_config.eos_token_id = None
    return model


def answers(model: Any, processor: Any, config: DuetConfig, prompts: Any, tokens: int) -> dict[str, Any]:
    """Greedy answers of the engine, each prompt alone."""
    rows = []
    torch.manual_seed(0)  # as vLLM does: the method "random" asks
    with duet_vlm.apply(model, config, tokenizer=processor) as handle:
        for which, question in prompts:
            content = [*[{"type": "image"}] * len(which), {"type": "text", "text": question}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            images = [pictures()[i] for i in which] or None
            inputs = processor(images=images, text=text, return_tensors="pt")
            with torch.no_grad():
                made = model.generate(
                    **inputs, max_new_tokens=tokens, do_sample=False, output_logits=True, return_dict_in_generate=True
                )
            ids = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
            logits = [step[0].float().log_softmax(-1) for step in made.logits]
            rows.append(
                {
                    "images": which,
                    "prompt": text,
                    "ids": ids,
                    "logprobs": [row[token].item() for row, token in zip(logits, ids, strict=True)],
                    "per_layer": handle.trace.samples[0].tokens_per_layer if which and handle.trace else [],
                }
            )
    return {"duet": config.to_dict(), "rows": rows}


def write(out: Path) -> None:
    torch.set_num_threads(1)
    shutil.rmtree(out, ignore_errors=True)
    model = random_model()
    processor = load()[1]
    found: dict[str, Any] = {}
    for name, config in settings(model).items():
        whole = name in ("duet", "visionzip")
        found[name] = answers(model, processor, config, PROMPTS if whole else FEW, 40 if whole else 12)
    for name in ("random", "saved"):
        if name == "saved":
            model.config.duet = found["duet"]["duet"]
        model.save_pretrained(out / name)
        processor.save_pretrained(out / name)
    shutil.copytree(out / "random", out / "hub")
    weights = load_file(out / "random" / "model.safetensors")
    renamed = {name.replace("vision_tower.", "vision_tower.vision_model.", 1): x for name, x in weights.items()}
    save_file(renamed, out / "hub" / "model.safetensors", metadata={"format": "pt"})
    model, processor = load()
    config = DuetConfig.preset("duet", model=model, keep=0.33)
    found["demo"] = answers(model, processor, config, PROMPTS, 4)
    shutil.copytree(demo_folder(), out / "demo")
    for number, picture in enumerate(pictures()):
        picture.save(out / f"{number}.png")
    (out / "answers.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    vllm_qwen.write(Path(sys.argv[1]))
