"""A small data set for examples/train.yaml: scenes as the demonstration model knows them, with questions and answers.

    python examples/train_scenes.py scenes --scenes 200

writes scenes/conversations.json, in the format of LLaVA, and scenes/images/*.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from duet_vlm.demo.questions import SKILLS, ask
from duet_vlm.demo.scenes import make_scene

FIRST_SEED = 5_000_000  # no scene that the demonstration model was trained or measured on


def write(folder: Path, scenes: int, turns: int = 3) -> Path:
    """Draw `scenes` scenes with up to `turns` questions each; returns the file of conversations."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(scenes):
        rng = np.random.default_rng(FIRST_SEED + number)
        scene = make_scene(rng)
        name = f"{number:05d}.png"
        Image.fromarray(scene.image).save(folder / "images" / name)
        asked = ask(rng, scene, tuple(str(skill) for skill in rng.permutation(SKILLS)))
        conversations = []
        for question in [q for q in asked if q is not None][:turns]:
            tag = "" if conversations else "<image>\n"
            conversations.append({"from": "human", "value": tag + question.text})
            conversations.append({"from": "gpt", "value": question.answer})
        records.append({"id": number, "image": name, "conversations": conversations})
    file = folder / "conversations.json"
    file.write_text(json.dumps(records, indent=1))
    return file


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw scenes with questions and answers to train on.")
    parser.add_argument("folder", type=Path, help="where to write conversations.json and images")
    parser.add_argument("--scenes", type=int, default=200, help="how many scenes to draw (default: 200)")
    arguments = parser.parse_args()
    print(write(arguments.folder, arguments.scenes))
