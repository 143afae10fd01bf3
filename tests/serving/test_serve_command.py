"""`duet serve` as a command: from its start to its end by a signal, the line for vLLM, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import saved
import saved_video
from commands import duet, refused
from openai import OpenAI
from serving import LONGEST, scene, user
from transformers import AutoConfig

from duet_vlm import DuetConfig, DuetError
from duet_vlm.inputs.model_folders import DEMO_FOLDER
from duet_vlm.serving import cli, engines
from duet_vlm.serving.limits import Limits

# `duet serve`, but where a file names a port, the next forward pass sends SIGTERM and waits until nobody listens there
COMMAND = """
import os, signal, socket, sys, time
from pathlib import Path
from torch.nn.modules.module import register_module_forward_pre_hook
from duet_vlm.cli.main import main

def end(module, inputs):
    if file.exists() and type(module).__name__ == "LlavaForConditionalGeneration":
        port = int(file.read_text())
        file.unlink()
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                return
            time.sleep(0.01)

file = Path(sys.argv.pop(1))
register_module_forward_pre_hook(end)
main()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved.save(tmp_path_factory.mktemp("models") / "llava")


def test_from_the_first_question_to_a_signal_amid_the_last(tmp_path: Path) -> None:
    """What runs is finished, though the signal comes before its first token."""
    file = tmp_path / "port"
    words = [sys.executable, "-c", COMMAND, str(file), "serve", "--keep", "0.33", "--port", "0", "--threads", "1"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            found = re.match(r"duet: serving demo at (http://127\.0\.0\.1:(\d+)/v1) by transformers, since (.*)$", line)
            assert found is not None, line + process.stderr.read()
            assert found[3] == "vLLM is not installed here: duet, --keep 0.33."
            with OpenAI(base_url=found[1], api_key="none", timeout=LONGEST, max_retries=0) as client:
                asked: dict[str, Any] = dict(messages=[user(scene(1), "What color is the star?")], max_tokens=4)
                name = client.models.list().data[0].id
                first = client.chat.completions.create(model=name, **asked)
                file.write_text(found[2])
                last = client.chat.completions.create(model=name, **asked)
            assert not file.exists()
            assert last.choices == first.choices and last.choices[0].message.content
            process.wait(LONGEST)
        finally:
            process.kill()
        assert (process.returncode, process.stderr.read()) == (-signal.SIGTERM, "")


def line(*arguments: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The environment and the options of a printed line."""
    result = duet("serve", "--print", *arguments)
    assert result.exit_code == 0 and result.stdout.count("\n") == 1, result.output
    words = shlex.split(result.stdout)
    start = words.index("python")
    assert words[0] == "env" and words[start : start + 3] == ["python", "-m", "vllm.entrypoints.openai.api_server"]
    options = words[start + 3 :]
    assert len(options) % 2 == 0 and all(name.startswith("--") for name in options[::2])
    return dict(word.split("=", 1) for word in words[1:start]), dict(zip(options[::2], options[1::2], strict=True))


def test_the_line_for_vllm(model: Path) -> None:
    strange = model.parent / "it's a model"
    strange.symlink_to(model, target_is_directory=True)
    environment, options = line(
        "--model", strange, "--tokens", 60, "--method", "visionzip+fastv", "--port", 8001, "--dtype", "bfloat16",
        "--max-images", 3, "--max-image-pixels", 1000, "--max-prompt-tokens", 700, "--max-new-tokens", 100,
        "--max-image-bytes", 5000, "--queue", 9, "--allow-urls",
    )  # fmt: skip
    config = DuetConfig.preset("visionzip+fastv", model=AutoConfig.from_pretrained(model), tokens=60)
    assert json.loads(options.pop("--hf-overrides")) == {"duet": json.loads(json.dumps(config.to_dict()))}
    assert json.loads(options.pop("--limit-mm-per-prompt")) == {"image": 3}
    assert options == {
        "--model": str(strange), "--served-model-name": str(strange), "--host": "127.0.0.1", "--port": "8001",
        "--dtype": "bfloat16", "--max-model-len": "800", "--allowed-media-domains": "nowhere.invalid",
        "--middleware": "duet_vlm.serving.vllm_gate.Gate", "--max-num-queued-reqs": "9", "--shutdown-timeout": "600",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as here:
        for name, value in environment.items():
            here.setenv(name, value)
        assert Limits.here() == Limits(3, 5000, 1000, 700, 100, 9, urls=True)
    assert environment["VLLM_MAX_IMAGE_PIXELS"] == "1000"


def test_vllm_takes_no_videos_and_as_many_requests_as_come(tmp_path: Path) -> None:
    saved_video.save(tmp_path, "qwen2_5_vl")
    _, options = line("--model", tmp_path, "--keep", 0.5)
    assert json.loads(options["--limit-mm-per-prompt"]) == {"image": 8, "video": 0}
    assert "--max-num-queued-reqs" not in options


@pytest.mark.parametrize("given", ["", "3", '{"images": 1, "sizes": 2}'])
def test_limits_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DUET_LIMITS", given)
    with pytest.raises(DuetError, match=r"DUET_LIMITS=.* holds no limits: take what `duet serve --print` shows"):
        Limits.here()


def test_the_line_for_the_demonstration_model() -> None:
    _, options = line()
    assert options["--model"] == str(DEMO_FOLDER) and options["--served-model-name"] == "demo"
    assert options["--dtype"] == "float32"
    assert options["--max-model-len"] == "1024"  # the model's own
    assert json.loads(options["--mm-processor-kwargs"]) == {"backend": "pil"}


def test_settings_that_a_model_brings_stay_where_they_are(model: Path, tmp_path: Path) -> None:
    brings = tmp_path / "brings"
    config = AutoConfig.from_pretrained(model)
    config.duet = DuetConfig.preset("duet", model=config, keep=0.5).to_dict()
    config.save_pretrained(brings)
    assert "--hf-overrides" not in line("--model", brings)[1]
    assert json.loads(line("--model", brings, "--method", "none")[1]["--hf-overrides"]) == {"duet": None}
    override = json.loads(line("--model", brings, "--keep", 0.25)[1]["--hf-overrides"])["duet"]
    assert override != config.duet and override["dominant"] < config.duet["dominant"]


def test_vllm_is_started_where_it_can_serve(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[tuple[str, list[str], dict[str, str]]]()
    monkeypatch.setattr(cli.os, "execve", lambda *words: started.append(words))
    monkeypatch.setattr(engines, "installed", lambda: True)
    expected = line("--model", model, "--keep", 0.5)
    result = duet("serve", "--model", model, "--keep", 0.5)
    assert result.exit_code == 0, result.output
    assert "in vLLM, since vLLM is installed and can serve the model: duet, --keep 0.5." in result.stderr
    ((program, words, environment),) = started
    assert program == words[0] == sys.executable and words[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert dict(zip(words[3::2], words[4::2], strict=True)) == expected[1]
    assert environment == {**os.environ, **expected[0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "sglang"], "engine 'sglang' is unknown: choose one of auto, vllm, transformers."),
        (["--engine", "vllm"], "engine 'vllm' cannot be had (vLLM is not installed here): use --engine transformers."),
        (["--engine", "transformers", "--print"], "--print shows how vLLM is started"),
        (["--print", "--device", "cpu"], "--device cpu is for the transformers engine"),
        (["--print", "--threads", 1], "--threads 1 is for the transformers engine"),
        (["--keep", 0.5, "--method", "none"], "method 'none' compresses nothing"),
        (["--host", "192.0.2.1", "--port", 0], "port 0 of '192.0.2.1' cannot be had"),
        (["--host", "no such host"], "host 'no such host' is unknown here"),
    ],
)  # fmt: skip
def test_what_cannot_be_served(arguments: list[Any], message: str) -> None:
    refused(duet("serve", *arguments), message)


def test_vllm_does_not_serve_every_family(tmp_path: Path) -> None:
    saved.save(tmp_path, "llava_next")
    refused(duet("serve", "--model", tmp_path, "--print"), "vLLM does not serve models of type 'llava_next' compressed")


def test_a_port_that_is_taken_is_refused_before_the_model_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duet_vlm.inputs.checkpoints.read_model", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(duet("serve", "--port", port), f"port {port} of '127.0.0.1' cannot be had")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("duet_vlm.serving.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused(duet("serve", "--port", 0), "duet serve needs uvicorn: pip install 'duet-vlm[serve]'.")
