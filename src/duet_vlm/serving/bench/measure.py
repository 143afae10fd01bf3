"""Stock against compressed in vLLM, engine beside engine: requests, first tokens, further tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from ...config.decoder_shape import DecoderShape
from ...errors import DuetError
from ...measuring.settings import STOCK, Setting, label, shortened
from ...measuring.summary import head
from ...measuring.timing import hardware, versions
from ...vllm import PREFIX
from .engines import opened
from .figures import Round, check_whole, figures
from .model import Source, image_of, prompt_of
from .options import ServingOptions

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PAUSE = 1.5  # seconds; a worker of vLLM that has nothing to do keeps a core busy for one
WARM_UP = 8  # clients that ask twice before anything is timed
BLOCK = 128  # tokens of a KV block, the largest that vLLM takes by itself
STEP = 3600  # seconds that a step may take; vLLM allows 300, and a CPU that others use too can need more


def benchmark(
    config: PreTrainedConfig,
    layers: int | None,
    listed: list[Setting],
    source: Source,
    options: ServingOptions,
    grid: tuple[int, ...] | None = None,
    size: tuple[int, int] | None = None,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time every setting, interleaved: at each concurrency stock, first, second, ..., and all again in the next round.

    Each setting has an engine of its own, and all are there at once, so there has to be memory for as many models.
    What the settings do not change is as vLLM chooses it; there are KV blocks for every client's prompt uncompressed.

    Args:
        config: the model's, whole.
        layers: how many decoder layers it has here, if fewer.
        listed: from `settings`; stock first.
        source: the model for vLLM.
        options: how to measure.
        grid, size: of each image, as `image_of` takes them.
        advance: called with a description before each of `steps(...)` pieces of work.

    Returns:
        JSON-able: `stock`, `settings` (one entry per compressed setting), each with `at` (one entry per concurrency);
        `options`, `hardware`, `versions`, `unit`.

    Raises:
        DuetError: vLLM ended, serves another class than it should, or left requests or tokens out.
    """
    config = shortened(config, layers)
    text = config.get_text_config()
    image, pixels = image_of(config, grid, size)
    shared = _arguments(config, source, options, image.visual_tokens, len(listed))
    threads = options.threads or torch.get_num_threads()
    counts = [image.tokens_per_layer(setting.config, text.num_hidden_layers) for setting in listed]
    rounds: list[dict[int, list[Round]]] = [{c: [] for c in options.concurrency} for _ in listed]
    with opened() as start:
        engines = []
        for setting in listed:
            advance(f"{label(setting)}, starting vLLM")
            given = None if setting.method == STOCK or not _compresses(setting) else setting.config.to_dict()
            job = {
                "engine": shared | {"hf_overrides": {"duet": given}},
                "prompt_ids": prompt_of(config, source.folder, options.text_tokens),
                "image": pixels,
            }
            engine = start(label(setting), job, environment(threads))
            _check_class(engine.name, engine.made["architecture"], given is not None)
            engine.ask({"clients": min(WARM_UP, max(options.concurrency)), "each": 2, "seed": 0, "tokens": 2})
            engines.append(engine)
        for run in range(options.runs):
            for concurrency in options.concurrency:
                wanted = {
                    "clients": concurrency, "each": options.requests, "tokens": options.answer_tokens,
                    "seed": [run + 1, concurrency],
                }  # fmt: skip
                for i, engine in enumerate(engines):
                    advance(f"{engine.name} at {concurrency}, run {run + 1}")
                    time.sleep(PAUSE)
                    found = Round.of(engine.ask(wanted))
                    check_whole(
                        engine.name, found, concurrency * options.requests, options.answer_tokens,
                        counts[i][0] + options.text_tokens,
                    )  # fmt: skip
                    rounds[i][concurrency].append(found)
        made = [engine.made for engine in engines]
    rows = []
    for i, setting in enumerate(listed):
        at = [figures(c, rounds[i][c], rounds[0][c] if i else None) for c in options.concurrency]
        engine = {name: made[i][name] for name in made[i] if name not in ("vllm", "device")}
        rows.append({**head(setting, counts[i]), "config": setting.config.to_dict(), "engine": engine, "at": at})
    return {
        "stock": rows[0],
        "settings": rows[1:],
        "options": asdict(options) | {"layers": text.num_hidden_layers, "engine": "vllm"},
        "unit": image.unit,
        "hardware": hardware(made[0]["device"]) | {"threads": threads},
        "versions": versions() | {"vllm": made[0]["vllm"]},
    }


def steps(listed: list[Setting], options: ServingOptions) -> int:
    """How often `benchmark` calls `advance`."""
    return len(listed) * (1 + options.runs * len(options.concurrency))


def _compresses(setting: Setting) -> bool:
    return setting.config.merges or bool(setting.config.drops)


def _arguments(
    config: PreTrainedConfig, source: Source, options: ServingOptions, visual_tokens: int, engines: int
) -> dict[str, Any]:
    """What all engines are told; everything else is vLLM's own choice."""
    longest, clients = visual_tokens + options.text_tokens + options.answer_tokens, max(options.concurrency)
    tokens = (clients + 1) * math.ceil(longest / BLOCK) * BLOCK
    text = config.get_text_config()
    per_token = DecoderShape.of(config, 4 if options.dtype == "float32" else 2).layer_kv_bytes(1)
    return {
        "model": source.folder,
        **source.arguments,
        "dtype": options.dtype,
        "max_model_len": longest,
        "max_num_seqs": clients,
        "kv_cache_memory_bytes": tokens * per_token * text.num_hidden_layers,
        "gpu_memory_utilization": 0.9 / engines,
        "limit_mm_per_prompt": {"image": 1} | ({"video": 0} if hasattr(config, "video_token_id") else {}),
    }


def environment(threads: int) -> dict[str, str]:
    """What vLLM reads from its environment: so many threads, bound to no core, long steps, no reports to its makers."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(STEP),
        "VLLM_NO_USAGE_STATS": "1",
    }


def _check_class(name: str, architecture: str, compressed: bool) -> None:
    if architecture.startswith(PREFIX) != compressed:
        raise DuetError(
            f"vLLM serves {name} by {architecture}: the plug-in of duet-vlm has to be installed where vLLM is, and "
            "VLLM_PLUGINS must not leave it out."
        )
