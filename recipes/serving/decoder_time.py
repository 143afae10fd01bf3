"""What the decoder and a decode step cost in vLLM, stock against compressed, on LLaVA-1.5-7B's shapes.

`make test-vllm` makes the environment; then, with its variables,
`python -m recipes.serving.decoder_time --out results/serving/decoder.json`.

One engine is asked in turns for a prompt with an image, which is compressed, and for text of the length that the prompt
has without compression, which vLLM's own forward runs: so weights are there once, and what else the machine does falls
on both. Times are those of the thread that computes, on one core (OMP_NUM_THREADS=1). The decoder's is from the model's
call to its end, metadata of stages included; a step's is all of `LLMEngine.step`.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from vllm import LLM, SamplingParams, __version__

from duet_vlm import DuetConfig
from duet_vlm.config.budget import stage1_counts, tokens_per_layer
from duet_vlm.vllm.settings import read

from . import shapes

QUESTION = "What number is on the green circle? "
BATCH, VISUAL = 8, 576


class Engine:
    """An engine whose model tells how long it took.

    Attributes:
        seconds: of each call of the model.
    """

    def __init__(self, folder: Path, duet: dict[str, Any]):
        self.llm = LLM(
            model=str(folder),
            load_format="dummy",
            dtype="bfloat16",
            enforce_eager=True,
            max_model_len=1024,
            max_num_seqs=BATCH,
            max_num_batched_tokens=BATCH * 704,
            block_size=32,
            enable_prefix_caching=False,
            enable_chunked_prefill=False,
            mm_processor_cache_gb=0,
            mm_processor_kwargs={"backend": "pil"},
            hf_overrides={"duet": duet},
            seed=0,
        )
        core: Any = self.llm.llm_engine.engine_core
        self.runner = core.engine_core.model_executor.driver_worker.worker.model_runner
        self.seconds: list[float] = []
        self._began = self._metadata = 0.0
        build = self.runner._build_attention_metadata
        model = self.runner.model

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            made = build(*args, **kwargs)
            self._metadata = time.thread_time() - began
            return made

        self.runner._build_attention_metadata = timed
        model.register_forward_pre_hook(lambda *_: setattr(self, "_began", time.thread_time()))
        model.register_forward_hook(lambda *_: self.seconds.append(time.thread_time() - self._began + self._metadata))

    def config(self) -> DuetConfig:
        return read(self.runner.model.config).config

    def prefill(self, prompt: Any) -> tuple[float, int]:
        """Decoder seconds of one prompt, and its tokens."""
        self.seconds.clear()
        (output,) = self.llm.generate(prompt, _greedy(1), use_tqdm=False)
        return self.seconds[-1], len(output.prompt_token_ids or [])

    def decode(self, prompt: Any, steps: int) -> list[float]:
        """Seconds of each step in which every request of a full batch makes one token."""
        engine = self.llm.llm_engine
        for _ in range(BATCH):
            engine.add_request(f"{time.time_ns()}", prompt, _greedy(steps + 4))
        found = []
        while engine.has_unfinished_requests():
            began = time.thread_time()
            made = engine.step()
            seconds = time.thread_time() - began
            if len(made) == BATCH and all(len(output.outputs[0].token_ids) > 1 for output in made):
                found.append(seconds)
        return found[:steps]


def _image(number: int) -> Any:
    noise = np.random.default_rng(number).integers(0, 256, (336, 336, 3), dtype=np.uint8)
    text = f"USER: <image>\n{QUESTION * 8}ASSISTANT:"
    return {"prompt": text, "multi_modal_data": {"image": Image.fromarray(noise)}}


def _text(tokens: int) -> Any:
    return {"prompt_token_ids": [5 + number % 90 for number in range(tokens)]}


def _greedy(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)


def compared(engine: Engine, rounds: int, steps: int) -> dict[str, Any]:
    """Measure both, in turns."""
    config = engine.config()
    _, tokens = engine.prefill(_image(0))  # not timed: what is made once
    whole = tokens - sum(stage1_counts(config, VISUAL)) + VISUAL
    engine.prefill(_text(whole))
    times: dict[str, list[float]] = {"stock": [], "compressed": []}
    decode: dict[str, list[float]] = {"stock": [], "compressed": []}
    for number in range(rounds):
        times["stock"].append(engine.prefill(_text(whole))[0])
        times["compressed"].append(engine.prefill(_image(number + 1))[0])
    for _ in range(2):
        decode["stock"] += engine.decode(_text(whole), steps)
        decode["compressed"] += engine.decode(_image(1), steps)
    visual = tokens_per_layer(config, VISUAL, shapes.LAYERS)
    text = whole - VISUAL
    promised = shapes.LAYERS * whole / (sum(visual) + shapes.LAYERS * text)
    middle = {name: statistics.median(values) for name, values in times.items()}
    step = {name: statistics.median(values) for name, values in decode.items()}
    ratio = middle["stock"] / middle["compressed"]
    return {
        "duet": config.to_dict(),
        "visual_tokens_per_layer": visual,
        "text_tokens": text,
        "decoder_seconds": times,
        "decoder_ratio": ratio,
        "promised_ratio": promised,
        "share_of_promise": ratio / promised,
        "decode_step_seconds": decode,
        "decode_step_ratio": step["compressed"] / step["stock"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--tokens", type=int, nargs="+", default=[192, 128, 64], help="budgets")
    parser.add_argument("--rounds", type=int, default=5, help="prompts of each engine")
    parser.add_argument("--steps", type=int, default=20, help="decode steps, twice")
    options = parser.parse_args()
    found: dict[str, Any] = {
        "vllm": __version__,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "layers": shapes.LAYERS,
        "batch": BATCH,
        "budgets": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        model = shapes.write(Path(folder) / "model")
        for tokens in options.tokens:
            print(f"{tokens} tokens: starting vLLM", flush=True)
            engine = Engine(model, {"preset": "duet", "tokens": tokens})
            print(f"{tokens} tokens: measuring", flush=True)
            row = found["budgets"][str(tokens)] = compared(engine, options.rounds, options.steps)
            share, step = row["share_of_promise"], row["decode_step_ratio"]
            print(f"{tokens} tokens: {share:.3f} of what is promised, a decode step {step:.3f} of stock's", flush=True)
            engine.llm.llm_engine.engine_core.shutdown()
            del engine
            gc.collect()  # its hooks know it
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
