"""How many requests fit into the KV cache of vLLM: stock, compressed, and with KV groups (`"kv_groups": true`).

`make test-vllm` makes the environment; then, with its variables,
`python -m recipes.serving.kv_groups --out results/serving/kv_groups.json`.

vLLM's own scheduler and KV cache manager count, on LLaVA-1.5-7B's shapes: the same bytes of memory, requests of one
image and some text, as many of them as there is place for. Nothing is computed, so nothing here depends on a machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from vllm import SamplingParams, __version__
from vllm.engine.arg_utils import EngineArgs
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.v1.core.kv_cache_utils import generate_scheduler_kv_cache_config, get_kv_cache_configs
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from duet_vlm.config.budget import tokens_per_layer
from duet_vlm.vllm.kv import group_by_stage
from duet_vlm.vllm.settings import read

from . import shapes

LAYERS, HEADS, WIDTH, VISUAL = 32, 32, 128, 576
BLOCK = 16  # tokens, as vLLM has it on GPUs
LAYER_BLOCK = BLOCK * HEADS * WIDTH * 2 * 2  # bytes of one layer's keys and values in bfloat16


def fitting(folder: Path, duet: dict[str, Any] | None, memory: int, text: int) -> dict[str, Any]:
    """Let a scheduler take as many requests as it can.

    Args:
        folder: with the model's config, as `shapes.write` makes it.
        duet: its settings; None for stock.
        memory: bytes of the KV cache.
        text: tokens of a request beside its image.

    Returns:
        JSON-able: `visual_tokens_per_layer`, `kv_blocks` (of the whole cache), `layers_per_block`, `blocks_per_request`
        (a number for each group of layers), `requests` (how many run at a time).
    """
    most = memory // LAYER_BLOCK // LAYERS  # each needs a block in every layer
    config = EngineArgs(
        model=str(folder),
        dtype="bfloat16",
        max_model_len=VISUAL + text,
        max_num_seqs=most,
        max_num_batched_tokens=most * (VISUAL + text),
        block_size=BLOCK,
        enable_prefix_caching=False,
        mm_processor_kwargs={"backend": "pil"},
        hf_overrides={} if duet is None else {"duet": duet},
    ).create_engine_config()
    config.cache_config.kv_cache_layout = "NHD"  # what a GPU's attention takes; it changes no count
    served = None if duet is None else read(config.model_config.hf_config)
    attentions = [SimpleNamespace(get_kv_cache_spec=_needed) for _ in range(LAYERS)]
    if served is not None and served.kv_groups:
        group_by_stage(attentions, served.config.drops)
    needed = {f"layers.{number}": one.get_kv_cache_spec(config) for number, one in enumerate(attentions)}
    cache = generate_scheduler_kv_cache_config(get_kv_cache_configs(config, [needed], [memory]))
    config.cache_config.num_gpu_blocks = cache.num_blocks
    scheduler = config.scheduler_config.get_scheduler_cls()(
        config, cache, StructuredOutputManager(config), block_size=BLOCK
    )
    visual = [VISUAL] * LAYERS if served is None else tokens_per_layer(served.config, VISUAL, LAYERS)
    for number in range(most):
        scheduler.add_request(_request(f"{number}", visual[0], text))
    scheduler.schedule()
    held = scheduler.kv_cache_manager.get_block_ids("0")
    return {
        "visual_tokens_per_layer": visual,
        "kv_blocks": cache.num_blocks,
        "layers_per_block": LAYERS // len(cache.kv_cache_groups),
        "blocks_per_request": [len(blocks) for blocks in held],
        "requests": len(scheduler.running),
    }


def _needed(_: Any) -> FullAttentionSpec:
    return FullAttentionSpec(block_size=BLOCK, num_kv_heads=HEADS, head_size=WIDTH, dtype=torch.bfloat16)


def _request(name: str, visual: int, text: int) -> Request:
    """An image behind one token of text; all have the same image, which so takes place in no other cache but once."""
    image = MultiModalFeatureSpec(None, "image", "image", PlaceholderRange(offset=1, length=visual))
    params = SamplingParams(max_tokens=1)
    return Request(name, [1] * (visual + text), params, None, mm_features=[image])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--tokens", type=int, nargs="+", default=[192, 128, 64], help="budgets")
    parser.add_argument("--text-tokens", type=int, default=128, help="tokens of prompt and answer beside the image")
    parser.add_argument("--gib", type=int, default=16, help="memory of the KV cache")
    options = parser.parse_args()
    memory, text = options.gib * 2**30, options.text_tokens
    found: dict[str, Any] = {
        "vllm": __version__,
        "shape": "llava-1.5-7b",
        "block_tokens": BLOCK,
        "memory_bytes": memory,
        "text_tokens": text,
        "budgets": {},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = shapes.write(Path(name) / "model", LAYERS)
        found["stock"] = fitting(folder, None, memory, text)
        for tokens in options.tokens:
            duet = {"preset": "duet", "tokens": tokens}
            found["budgets"][str(tokens)] = {
                "one_group": fitting(folder, duet, memory, text),
                "kv_groups": fitting(folder, duet | {"kv_groups": True}, memory, text),
            }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"stock: {found['stock']['requests']} requests")
    for tokens, both in found["budgets"].items():
        one, grouped = both["one_group"]["requests"], both["kv_groups"]["requests"]
        print(f"{tokens} tokens: {one} requests, with kv_groups {grouped}")


if __name__ == "__main__":
    main()
