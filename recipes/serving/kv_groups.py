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


def scheduler_of(folder: Path, duet: dict[str, Any] | None, memory: int, **options: Any) -> Any:
    """The scheduler that vLLM makes of its flags; `VllmConfig` and the settings stand in its `vllm_config`.

    Args:
        folder: with the model's config, as `shapes.write` makes it.
        duet: its settings; None for stock.
        memory: bytes of the KV cache.
        options: flags.
    """
    config = EngineArgs(
        model=str(folder), dtype="bfloat16", block_size=BLOCK, enable_prefix_caching=False,
        mm_processor_kwargs={"backend": "pil"}, hf_overrides={} if duet is None else {"duet": duet}, **options,
    ).create_engine_config()  # fmt: skip
    config.cache_config.kv_cache_layout = "NHD"  # what a GPU's attention takes; it changes no count
    attentions = [SimpleNamespace(get_kv_cache_spec=_needed) for _ in range(LAYERS)]
    if duet is not None and read(config.model_config.hf_config).kv_groups:
        group_by_stage(attentions, read(config.model_config.hf_config).config.drops)
    needed = {f"layers.{number}": one.get_kv_cache_spec(config) for number, one in enumerate(attentions)}
    cache = generate_scheduler_kv_cache_config(get_kv_cache_configs(config, [needed], [memory]))
    config.cache_config.num_gpu_blocks = cache.num_blocks
    made = config.scheduler_config.get_scheduler_cls()
    return made(config, cache, StructuredOutputManager(config), block_size=BLOCK)


def request_of(name: str, visual: int, text: int, image: str = "image") -> Request:
    """A request of an image behind one token of text; images of one name are the same, and encoded once."""
    feature = MultiModalFeatureSpec(None, "image", image, PlaceholderRange(offset=1, length=visual))
    return Request(name, [1] * (visual + text), SamplingParams(max_tokens=1), None, mm_features=[feature])


def fitting(folder: Path, duet: dict[str, Any] | None, memory: int, text: int) -> dict[str, Any]:
    """Let a scheduler take as many requests as it can.

    Args:
        folder, duet, memory: as `scheduler_of` takes them.
        text: tokens of a request beside its image.

    Returns:
        JSON-able: `visual_tokens_per_layer`, `kv_blocks` (of the whole cache), `layers_per_block`, `blocks_per_request`
        (a number for each group of layers), `requests` (how many run at a time).
    """
    most = memory // LAYER_BLOCK // LAYERS  # each needs a block in every layer
    length = VISUAL + text
    scheduler = scheduler_of(
        folder, duet, memory, max_model_len=length, max_num_seqs=most, max_num_batched_tokens=most * length
    )
    hf_config = scheduler.vllm_config.model_config.hf_config
    visual = [VISUAL] * LAYERS if duet is None else tokens_per_layer(read(hf_config).config, VISUAL, LAYERS)
    for number in range(most):
        scheduler.add_request(request_of(f"{number}", visual[0], text))
    scheduler.schedule()
    held = scheduler.kv_cache_manager.get_block_ids("0")
    return {
        "visual_tokens_per_layer": visual,
        "kv_blocks": scheduler.kv_cache_config.num_blocks,
        "layers_per_block": LAYERS // len(held),
        "blocks_per_request": [len(blocks) for blocks in held],
        "requests": len(scheduler.running),
    }


def _needed(_: Any) -> FullAttentionSpec:
    return FullAttentionSpec(block_size=BLOCK, num_kv_heads=HEADS, head_size=WIDTH, dtype=torch.bfloat16)


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
