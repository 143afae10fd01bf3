"""What PixelPrune leaves of drawn pages and screens, and what that saves in a tower of Qwen2.5-VL-7B's shapes.

python -m recipes.pixelprune --out results/pixelprune/pixelprune.json
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_window_index

import duet_vlm
from duet_vlm.families import audience, family_of
from duet_vlm.families.pixelprune import KeptStage1, Pruning
from duet_vlm.pages.paper import font

SIZES = {"timed": (672, 448), "large": (1288, 896)}  # width and height in pixels; the processor shrinks the second
LETTER = "the total of all items is due within ten days of this letter and may be paid at any office of the bank"
WORDS = LETTER.split()
LAYERS, DEPTH, FULL = 2, 32, 4  # timed; published; of these with full attention
THRESHOLDS = (0, 2, 8)


def page(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A letter: black text of 14 pixels on white, with margins and gaps between paragraphs."""
    image = Image.new("RGB", (width, height), "white")
    draw, y = ImageDraw.Draw(image), height // 12
    while y < height * 0.85:
        for _ in range(int(rng.integers(2, 6))):
            line = " ".join(rng.choice(WORDS, width // 90))
            draw.text((width // 10, y), line, fill="black", font=font("DejaVuSans", 14))
            y += 20
        y += 40
    return image


def screen(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A desktop window: a bar, a list at the left, cards with a title and a button."""
    image = Image.new("RGB", (width, height), "#f3f4f6")
    draw, small = ImageDraw.Draw(image), font("DejaVuSans", 12)
    draw.rectangle((0, 0, width, 32), fill="#1f2937")
    draw.text((12, 9), "File   Edit   View   Help", fill="white", font=small)
    draw.rectangle((0, 33, width // 5, height), fill="#e5e7eb")
    for row in range((height - 60) // 30):
        draw.text((14, 48 + 30 * row), str(rng.choice(WORDS)), fill="#111827", font=small)
    for row in range((height - 60) // 140):
        left, top = width // 5 + 24, 56 + 140 * row
        draw.rectangle((left, top, width - 24, top + 112), fill="white", outline="#d1d5db")
        draw.text((left + 14, top + 12), " ".join(rng.choice(WORDS, 4)), fill="#111827", font=small)
        draw.rectangle((left + 14, top + 70, left + 104, top + 96), fill="#2563eb")
        draw.text((left + 36, top + 76), "Open", fill="white", font=small)
    return image


def grain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The same with the noise of a scan, four levels."""
    noisy = np.asarray(image, np.float32) + 4 * rng.standard_normal((*image.size[::-1], 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def made(image: Image.Image) -> dict[str, Any]:
    return dict(Qwen2VLImageProcessorPil()([image], return_tensors="pt"))


def model(layers: int) -> Any:
    """Qwen2.5-VL-7B's tower with as many layers, the last with full attention; hardly any language model."""
    vision = dict(depth=layers, hidden_size=1280, num_heads=16, intermediate_size=3420, out_hidden_size=3584,
                  window_size=112, patch_size=14, fullatt_block_indexes=[layers - 1])  # fmt: skip
    text = dict(hidden_size=3584, intermediate_size=16, num_hidden_layers=1, num_attention_heads=28, vocab_size=300,
                num_key_value_heads=4)  # fmt: skip
    ids: dict[str, Any] = dict(
        image_token_id=290, video_token_id=291, vision_start_token_id=292, vision_end_token_id=293
    )
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=text, **ids)
    return AutoModelForImageTextToText.from_config(config).eval()


def flops(tower: Any, grid: torch.Tensor, kept: torch.Tensor, depth: int, full: int) -> float:
    """Multiplications and additions of the tower for the kept blocks (N,), attention and merger included."""
    vision, n = tower.config, 4 * int(kept.sum())
    width, wide = vision.hidden_size, vision.intermediate_size
    index, ends = get_vision_window_index(grid, 2, vision.window_size, vision.patch_size)
    counts = torch.stack([part.sum() for part in kept[index].tensor_split(ends[1:-1].long() // 4)]) * 4
    linear = 2 * n * (4 * width**2 + 3 * width * wide) * depth
    attention = 4 * width * (full * n**2 + (depth - full) * float((counts.double() ** 2).sum()))
    merger = 2 * (n // 4) * (4 * width) * (4 * width + vision.out_hidden_size)
    return float(linear + attention + merger + 2 * n * 1176 * width)


def main(out: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")], repeats: int = 2) -> None:
    torch.set_num_threads(1)
    found, whole = list[dict[str, Any]](), model(LAYERS)
    tower, core = whole.model.visual, whole.model
    for size, (width, height) in SIZES.items():
        for name, draw in (("page", page), ("screen", screen)):
            rng = np.random.default_rng(7)
            clean = draw(width, height, rng)
            for kind, image in ((name, clean), (f"{name} with grain", grain(clean, rng))):
                inputs = made(image)
                for threshold in THRESHOLDS:
                    row = measured(
                        whole, core, tower, inputs, threshold, repeats if size == "timed" and not threshold else 0
                    )
                    found.append({"picture": kind, "width": width, "height": height, "threshold": threshold, **row})
                    typer.echo(json.dumps(found[-1]))
    out.write_text(json.dumps({"layers timed": LAYERS, "layers counted": DEPTH, "rows": found}, indent=1) + "\n")


@torch.no_grad()
def measured(
    whole: Any, core: Any, tower: Any, inputs: dict[str, Any], threshold: float, repeats: int
) -> dict[str, Any]:

    stage = KeptStage1(core, duet_vlm.DuetConfig(pixelprune=threshold), family_of(whole.config))
    start = time.process_time()
    (blocks,) = Pruning(stage).images(
        tower, {"hidden_states": inputs["pixel_values"], "grid_thw": inputs["image_grid_thw"]}
    )
    kept = Pruning(stage).kept(blocks).flatten()
    looking, grid = time.process_time() - start, inputs["image_grid_thw"]
    before, after = (flops(tower, grid, one, DEPTH, FULL) for one in (torch.ones_like(kept), kept))
    row: dict[str, Any] = {"tokens": len(kept), "kept": int(kept.sum()), "flops": before, "flops_kept": after,
                           "choice_cpu_seconds": looking}  # fmt: skip
    times: dict[str, list[float]] = {"stock": [], "pixelprune": []}
    for _ in range(repeats):
        for name in times:
            config = duet_vlm.DuetConfig(pixelprune=threshold if name == "pixelprune" else None)
            with duet_vlm.apply(whole, config), audience.for_engine():
                start = time.process_time()
                core.get_image_features(**inputs, return_dict=True)
                times[name].append(time.process_time() - start)
    return row | {f"{name}_cpu_seconds": seconds for name, seconds in times.items() if seconds}


if __name__ == "__main__":
    typer.run(main)
