"""Qwen2.5-VL and Qwen3-VL for the tests of vLLM: small models with random weights, pictures, clips, and what is asked.

`write` puts the models `qwen2_5_vl` and `qwen3_vl` into a folder, and `qwen.json`: what the transformers engine
answers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import saved_video
import tiny
import torch
import transformers
import zoo
import zoo_qwen

import duet_vlm
from duet_vlm import Drop, DuetConfig
from duet_vlm.inputs.video.stock import stock_processor

KINDS = {"qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
# height and width, of several sizes that no processor changes; the last has too few tokens for the counts below
PICTURES = {"a": (48, 64), "b": (96, 40), "c": (32, 32)}
CLIPS = {"v": (6, 40, 80)}  # frames, height, width
SHOWN = dict.fromkeys(PICTURES, "<|vision_start|><|image_pad|><|vision_end|>") | dict.fromkeys(
    CLIPS, "<|vision_start|><|video_pad|><|vision_end|>"
)
PROMPTS = (
    ("a", "what is in the red square ?"),
    ("ab", "who is on the left of it ?"),
    ("", "where does it go ?"),
    ("v", "what happens in the video here ?"),
    ("cv", "what is red ?"),
    ("bc", "what is in the square and where ?"),
    ("a", "where is it ?"),
)
FEW = PROMPTS[:5]
TOKENS = (40, 25, 40, 33, 40, 12, 40)

# the first drop stands between two layers that add deepstack features
BOTH = DuetConfig(dominant=18, contextual=5, drops=[Drop(1, 0.6), Drop(3, 0.3, rank_at=2), Drop(5, 0.0)], query="last")
SETTINGS = {
    "stock": DuetConfig(),
    "stage 1": DuetConfig(dominant=0.3, contextual=0.1),
    "both": BOTH,
    "stage 2": DuetConfig(drops=[Drop(2, 0.5), Drop(4, 0.25)]),
}
CHANGES: dict[str, dict[str, Any]] = {
    "merging": {"merging": "visionzip", "combine": "mean", "diverse": True, "query": "all"},
    "rest": {"merging": "holov", "rest": True, "debias": True},
    "divprune": {"merging": "divprune", "ranking": "sparsevlm", "query": "all", "debias": True},
    "prumerge": {"merging": "prumerge", "ranking": "keynorm"},
    "pool": {"merging": "pool", "query": "salient"},
    "uniform": {"merging": "uniform", "ranking": "random"},
    "random": {"merging": "random", "ranking": "random"},
    "tops": {"merging": "scope", "ranking": "tops", "query": "all"},
    "cdpruner": {"merging": "mmr", "ranking": "cdpruner", "query": "all"},
}
CASES = SETTINGS | {f"methods/{name}": replace(BOTH, **changes) for name, changes in CHANGES.items()}


def picture(name: str) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.random.default_rng(ord(name)).integers(0, 256, (*PICTURES[name], 3), dtype=np.uint8)


def clip(name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """(T, H, W, 3) uint8, and what is said of it: two frames a second, all of them shown."""
    frames = CLIPS[name][0]
    told = {"total_num_frames": frames, "fps": 2.0, "duration": frames / 2, "frames_indices": list(range(frames))}
    return np.random.default_rng(ord(name)).integers(0, 256, (*CLIPS[name], 3), dtype=np.uint8), told


def prompt(media: str, question: str) -> str:
    return " ".join([*(SHOWN[one] for one in media), f"user : {question} assistant :"])


def build(family: str) -> Any:
    """Heads of 32, which vLLM's attention on a CPU knows; attention far from uniform."""
    vision: dict[str, Any] = dict(
        depth=3, num_heads=4, in_channels=3, patch_size=4, spatial_merge_size=2, temporal_patch_size=2,
        hidden_size=128, intermediate_size=64, out_hidden_size=128,
    )  # fmt: skip
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    text = zoo_qwen.QWEN_TEXT | dict(hidden_size=128, intermediate_size=128, num_hidden_layers=6, head_dim=32)
    if family == "qwen2_5_vl":
        vision |= dict(window_size=16, fullatt_block_indexes=[1])
        rope |= {"mrope_section": [4, 6, 6]}
    else:
        vision |= dict(num_position_embeddings=64, deepstack_visual_indexes=[0, 1])
        rope |= {"mrope_section": [6, 5, 5], "mrope_interleaved": True}
    text |= dict(rope_parameters=rope, max_position_embeddings=1024)
    config = getattr(transformers, f"{KINDS[family]}Config")(
        vision_config=vision, text_config=text, **zoo_qwen.QWEN_IDS
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{KINDS[family]}ForConditionalGeneration")(config).eval()
    tiny.randomize(model, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                # features and logits of a size at which float32 has the places that are compared
                parameter.mul_(0.3 if "merger" in name else 1.0 if "visual" in name else 0.6)
            elif "k_norm" in name:  # equal weights give equal norms, which "keynorm" cannot rank by
                parameter.uniform_(0.2, 1.8)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = zoo.PAD
    return model


def save(model: Any, folder: Path, family: str) -> None:
    """With the files of a processor, as they are on the hub."""
    model.save_pretrained(folder)
    saved_video.tokenizer(family).save_pretrained(folder)
    files = saved_video.FAMILIES[family]
    # vLLM normalises on the device, by what the files say and no default
    half = [0.5, 0.5, 0.5]
    norm = {"do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "image_mean": half, "image_std": half}
    image = files["image"] | norm | {"max_pixels": 16384}
    video = files["video"] | norm | {"size": {"shortest_edge": 1024, "longest_edge": 65536}}
    for name, content in (("preprocessor", image), ("video_preprocessor", video), ("processor", files["processor"])):
        (folder / f"{name}_config.json").write_text(json.dumps(content), encoding="utf-8")


def inputs(processor: Any, media: str, question: str) -> Any:
    """What the processor makes of a prompt."""
    given: dict[str, Any] = {}
    images, clips = ([one for one in media if one in known] for known in (PICTURES, CLIPS))
    if images:
        given["images"] = [picture(one) for one in images]
    if clips:
        frames, told = zip(*map(clip, clips), strict=True)
        size = {"height": frames[0].shape[1], "width": frames[0].shape[2]}
        given |= {"videos": list(frames), "video_metadata": [one | size for one in told], "do_sample_frames": False}
    return processor(text=[prompt(media, question)], return_tensors="pt", **given)


def answers(model: Any, processor: Any, config: DuetConfig, prompts: Any, tokens: int) -> dict[str, Any]:
    """Greedy answers of the engine, each prompt alone."""
    rows = []
    torch.manual_seed(0)  # as vLLM does: the method "random" asks
    with duet_vlm.apply(model, config, tokenizer=processor) as handle:
        for media, question in prompts:
            given = inputs(processor, media, question)
            with torch.no_grad():
                made = model.generate(
                    **given, max_new_tokens=tokens, do_sample=False, output_logits=True, return_dict_in_generate=True
                )
            ids = made.sequences[0, given["input_ids"].shape[1] :].tolist()
            logits = [step[0].float().log_softmax(-1) for step in made.logits]
            rows.append(
                {
                    "media": media,
                    "prompt": prompt(media, question),
                    "ids": ids,
                    "logprobs": [row[token].item() for row, token in zip(logits, ids, strict=True)],
                    "per_layer": handle.trace.samples[0].tokens_per_layer if media and handle.trace else [],
                }
            )
    return {"duet": config.to_dict(), "rows": rows}


def write(out: Path) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for family in KINDS:
        model = build(family)
        save(model, out / family, family)
        processor = stock_processor(str(out / family), model.config)
        for name, config in CASES.items():
            whole = name in SETTINGS
            prompts = PROMPTS if whole else FEW
            found[f"{family}/{name}"] = answers(model, processor, config, prompts, max(TOKENS) if whole else 12)
    (out / "qwen.json").write_text(json.dumps(found), encoding="utf-8")
