"""Manifests of drawn scenes for `duet batch`, and their answers by the engine itself, one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from duet_vlm import DuetConfig, apply
from duet_vlm.demo.model import load
from duet_vlm.demo.questions import SKILLS, ask
from duet_vlm.demo.scenes import make_scene

KEEP, LONGEST = 0.33, 4


def manifest(folder: Path, count: int, seed: int = 0) -> Path:
    """`count` records q0, q1, ... about as many drawn scenes."""
    rng, records = np.random.default_rng(seed), list[dict[str, Any]]()
    while len(records) < count:
        scene = make_scene(rng)
        question = next(found for found in ask(rng, scene, SKILLS) if found is not None)
        name = f"scene{len(records)}.png"
        Image.fromarray(scene.image).save(folder / name)
        records.append({"id": f"q{len(records)}", "image": name, "question": question.text})
    return write(folder / "records.jsonl", records)


def write(file: Path, records: list[Any]) -> Path:
    """A manifest; what is a text stands in it as it is."""
    file.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in records))
    return file


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def one_by_one(file: Path, names: list[str]) -> dict[str, tuple[str, list[int]]]:
    """Of the records named: its answer and its visual tokens in each layer, with `KEEP` of them kept."""
    model, processor = load()
    found, records = {}, [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{")]
    with apply(model, DuetConfig.preset("duet", model=model, keep=KEEP), tokenizer=processor) as handle:
        for record in (one for one in records if one["id"] in names):
            said = [{"type": "image"}, {"type": "text", "text": record["question"]}]
            text = processor.apply_chat_template([{"role": "user", "content": said}], add_generation_prompt=True)
            with Image.open(file.parent / record["image"]) as image:
                inputs = processor(images=image.convert("RGB"), text=text, return_tensors="pt")
            out = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
            answer = processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
            assert handle.trace is not None
            found[record["id"]] = (answer, list(handle.trace.samples[0].tokens_per_layer))
    return found
