"""A folder with LLaVA-1.5-7B's shapes, cut to a few layers, and the demonstration model's words: no weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from duet_vlm.demo.model import folder as demo_folder
from duet_vlm.inputs.shapes import SHAPES

LAYERS = 8


def write(folder: Path, layers: int = LAYERS) -> Path:
    """Write what vLLM needs to make the model with dummy weights."""
    shape, demo = SHAPES["llava-1.5-7b"], demo_folder()
    shutil.copytree(demo, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.png", "*.md"), dirs_exist_ok=True)
    config = json.loads((demo / "config.json").read_text(encoding="utf-8"))
    text = config["text_config"] | {"num_key_value_heads": 32, "head_dim": 128}
    text |= shape.config["text_config"] | {"num_hidden_layers": layers}
    tokens = {name: value for name, value in config["text_config"].items() if name.endswith("_token_id")}
    config["text_config"] = text | tokens
    config["vision_config"] |= shape.config["vision_config"]
    config["image_seq_length"] = 576
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    processor = json.loads((demo / "processor_config.json").read_text(encoding="utf-8"))
    processor["patch_size"] = 14
    sides = {"height": 336, "width": 336}
    processor["image_processor"] |= {"size": sides, "crop_size": sides}
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder
