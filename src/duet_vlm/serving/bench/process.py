"""An engine of vLLM in a process of its own: `python -m duet_vlm.serving.bench.process`, one JSON object a line.

It reads what the engine is made of (`engine`, arguments of vLLM) and what is asked (`prompt_ids`, `image`), says when
it is ready, and then answers every line of `clients`, `each`, `tokens` and `seed` with the times of the requests.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from time import perf_counter
from typing import Any, TextIO

from .figures import Answered

Prompts = list[list[dict[str, Any]]]


def main() -> None:
    """Serve until there are no more lines."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what vLLM prints is for its log
    job = json.loads(sys.stdin.readline())
    asyncio.run(_serve(job, answers))


async def _serve(job: dict[str, Any], answers: TextIO) -> None:
    import vllm
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    def say(reply: dict[str, Any]) -> None:
        print(json.dumps(reply), file=answers, flush=True)

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**job["engine"]))
    try:
        say({"vllm": vllm.__version__, "device": current_platform.device_type, **_made(engine.vllm_config)})
        while line := await asyncio.to_thread(sys.stdin.readline):
            wanted = json.loads(line)
            prompts = _prompts(job, wanted)
            turns = [_client(engine, i, asked, wanted["tokens"]) for i, asked in enumerate(prompts)]
            say({"requests": [asdict(one) for each in await asyncio.gather(*turns) for one in each]})
    finally:
        engine.shutdown()


def _made(config: Any) -> dict[str, Any]:
    """What the engine came to be; stage 2 switches some of it off."""
    return {
        "architecture": config.model_config.architectures[0],
        "eager": bool(config.model_config.enforce_eager),
        "prefix_caching": bool(config.cache_config.enable_prefix_caching),
        "chunked_prefill": bool(config.scheduler_config.enable_chunked_prefill),
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
    }


def _prompts(job: dict[str, Any], wanted: dict[str, Any]) -> Prompts:
    """Of every client the prompts that it asks; no two have the same image, so that no cache knows one."""
    import numpy as np
    from PIL import Image

    width, height = job["image"]
    noise = np.random.default_rng(wanted["seed"])

    def prompt() -> dict[str, Any]:
        image = Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8))
        return {"prompt_token_ids": job["prompt_ids"], "multi_modal_data": {"image": image}}

    return [[prompt() for _ in range(wanted["each"])] for _ in range(wanted["clients"])]


async def _client(engine: Any, number: int, prompts: list[dict[str, Any]], tokens: int) -> list[Answered]:
    """Ask one after the other."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA)
    answered = []
    for i, prompt in enumerate(prompts):
        asked, times, count, length = perf_counter(), [], 0, 0
        async for output in engine.generate(prompt, params, f"{number}-{i}-{asked}"):
            if output.outputs[0].token_ids:
                times.append(perf_counter())
                count += len(output.outputs[0].token_ids)
            length = len(output.prompt_token_ids or ()) or length
        answered.append(Answered(asked, times[0], times[-1], count, length))
    return answered


if __name__ == "__main__":
    main()
