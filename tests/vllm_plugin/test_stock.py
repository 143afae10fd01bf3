"""Without `duet` in its config a model is vLLM's own: the class, the tokens, the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from vllm.model_executor.models.llava import LlavaForConditionalGeneration
from vllm_engine import check, engine, greedy, model_of, references, request

import duet_vlm.vllm

ROWS = references()["stock"]["rows"]
SCRIPT = """
import json
from vllm_engine import engine, greedy, references, request
with engine("hub", enforce_eager=True) as llm:
    rows = references()["stock"]["rows"]
    outputs = llm.generate([*map(request, rows)], greedy(12))
    made = [output.outputs[0] for output in outputs]
    print("ANSWERS" + json.dumps([[step[token].logprob for step, token in zip(o.logprobs, o.token_ids)] for o in made]))
"""


def test_the_same_bits_as_without_the_plug_in() -> None:
    with engine("hub", enforce_eager=True) as llm:
        model = model_of(llm)
        assert type(model) is LlavaForConditionalGeneration
        backends = {layer.self_attn.attn.attn_backend.__name__ for layer in model.language_model.model.layers}
        assert backends == {"CPUAttentionBackend"}
        outputs = llm.generate([*map(request, ROWS)], greedy(12))
    check(outputs, ROWS)
    made = [o.outputs[0] for o in outputs]
    ours = [[step[token].logprob for step, token in zip(o.logprobs, o.token_ids, strict=True)] for o in made]
    path = os.pathsep.join(["tests/support", os.environ.get("PYTHONPATH", "")])
    alone = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"VLLM_PLUGINS": "", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in alone.stdout.splitlines() if line.startswith("ANSWERS")]
    assert json.loads(line.removeprefix("ANSWERS")) == ours


def test_registering_imports_nothing_of_ours() -> None:
    script = (
        "import sys, vllm.model_executor.models.registry; before = set(sys.modules)\n"
        "import duet_vlm.vllm; duet_vlm.vllm.register(); duet_vlm.vllm.register()\n"
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('vllm.')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    new = json.loads(done.stdout.strip().splitlines()[-1].replace("'", '"'))
    assert {name for name in new if name.startswith("duet_vlm.vllm")} == {"duet_vlm.vllm"}
    assert not {"torch", "numpy"} & set(new)


def test_every_class_that_serves_is_there() -> None:
    from importlib import import_module

    for served in duet_vlm.vllm.SERVED.values():
        module, _, name = served.partition(":")
        assert hasattr(import_module(module), name)
