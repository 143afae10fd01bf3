"""What a step of the full stage costs with and without compression: seconds next to floating point operations."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from duet_vlm import DuetConfig
from duet_vlm.config.budget import tokens_per_layer
from duet_vlm.demo.model import TEXT_LAYERS, TEXT_WIDTH, VISION_WIDTH, VISUAL_TOKENS, config
from recipes.demo import attention
from recipes.demo.batches import PREFIX, QUESTION_TOKENS, make_batch
from recipes.demo.language import LanguageHeads, LanguageStep
from recipes.demo.vision import VisionHeads


def step_flops(counts: list[int]) -> int:
    """Forward and backward of one packed scene: tower and decoder, a multiply and an add each.

    `counts`: visual tokens in each decoder layer.  Attention is counted as it is computed: the image's prefix among
    itself, every question token with the prefix and all question tokens.  Heads and projector are left out.
    """
    sizes = config()
    vision, text = sizes.vision_config, sizes.get_text_config()
    width, seen = vision.hidden_size, VISUAL_TOKENS + 1  # type: ignore[union-attr]
    weights = 4 * width**2 + 2 * width * vision.intermediate_size  # type: ignore[union-attr]
    flops = vision.num_hidden_layers * (2 * seen * weights + 4 * seen**2 * width)  # type: ignore[union-attr]
    width = text.hidden_size
    weights = 4 * width**2 + 3 * width * text.intermediate_size
    for visual in counts:
        prefix = len(PREFIX) + visual
        pairs = prefix**2 + QUESTION_TOKENS * (prefix + QUESTION_TOKENS)
        flops += 2 * (prefix + QUESTION_TOKENS) * weights + 4 * pairs * width
    return 3 * flops  # a backward pass costs two forward ones


def measure(keeps: list[float], scenes: int = 8, rounds: int = 8, compiled: bool = True) -> dict[str, Any]:
    """CPU seconds of forward and backward of a step, full tokens and each budget in turn, in one thread.

    CPU time rather than wall time, so that other programs on the machine count less; medians over the rounds after
    two for warming up.  Random weights: the time does not depend on them.
    """
    from transformers import LlavaForConditionalGeneration

    from recipes.demo.training import compile_blocks

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config())
    if compiled:
        compile_blocks(model)
    attention.register()
    model.set_attn_implementation(attention.NAME)
    step = LanguageStep(model, LanguageHeads(TEXT_WIDTH), VisionHeads(VISION_WIDTH), True)
    settings = {1.0: None} | {k: DuetConfig.preset("duet", model=model, keep=k) for k in keeps}
    seconds: dict[float, list[float]] = {k: [] for k in settings}
    for number in range(rounds + 2):
        batch = make_batch(np.random.default_rng(number), scenes, VISUAL_TOKENS)
        for keep, setting in settings.items():
            began = time.process_time()
            loss, _ = step(batch, 0.0, False, compression=setting)
            loss.backward()
            seconds[keep].append(time.process_time() - began)
            nn.Module.zero_grad(model)
    torch.set_num_threads(threads)
    rows = {}
    all_flops = step_flops([VISUAL_TOKENS] * TEXT_LAYERS)
    full = float(np.median(seconds[1.0][2:]))
    for keep, setting in settings.items():
        counts = [VISUAL_TOKENS] * TEXT_LAYERS
        if setting is not None:
            counts = tokens_per_layer(setting, VISUAL_TOKENS, TEXT_LAYERS)
        flops, median = step_flops(counts) / all_flops, float(np.median(seconds[keep][2:]))
        rows[f"{keep:.0%}"] = {
            "cpu_seconds": round(median, 4),
            "time_ratio": round(median / full, 4),
            "flops_ratio": round(flops, 4),
            "saved_of_what_flops_save": None if keep == 1 else round((1 - median / full) / (1 - flops), 4),
            "samples": [round(s, 4) for s in seconds[keep][2:]],
        }
    return {"scenes": scenes, "rounds": rounds, "compiled": compiled, "torch": torch.__version__, "budgets": rows}
