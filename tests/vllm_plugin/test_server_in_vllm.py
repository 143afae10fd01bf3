"""`duet serve` in vLLM from its start to a signal amid a stream: answers, bad requests, limits, and what it counts."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import httpx
import pytest
from openai import OpenAI
from PIL import Image
from vllm_engine import FOLDER, references

ROWS = [row for row in references()["demo"]["rows"] if len(row["images"]) < 2]
LONGEST = 600.0  # seconds after which an answer never comes
BYTES, PIXELS = 100_000, 210_000


class Server:
    """A server in a process of its own.

    Attributes:
        process: it.
        client, http: ask it.
    """

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = [
            "serve", "--engine", "vllm", "--keep", "0.33", "--port", port, "--max-images", 2, "--allow-urls",
            "--max-image-bytes", BYTES, "--max-image-pixels", PIXELS, "--max-prompt-tokens", 500,
        ]  # fmt: skip
        script = "from duet_vlm.cli.main import main; main()"
        # the tests keep vLLM in one process, the command does as a server does
        environment = {name: value for name, value in os.environ.items() if name != "VLLM_ENABLE_V1_MULTIPROCESSING"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, words)], env=environment, stderr=subprocess.STDOUT,
            stdout=(FOLDER / "server.log").open("w"), start_new_session=True,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=url, timeout=LONGEST)
        self.client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=LONGEST, max_retries=0)

    def wait(self) -> None:
        """Until it takes requests."""
        while not self.healthy():
            assert self.process.poll() is None, (FOLDER / "server.log").read_text()[-4000:]
            time.sleep(0.5)

    def close(self) -> None:
        """End it, and what it started."""
        self.http.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def left(self) -> bool:
        """Whether any process of it is still there, a few seconds after it ended."""
        for _ in range(50):
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.2)
        return True

    def healthy(self) -> bool:
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def visual_tokens(self) -> list[float]:
        lines = self.http.get("/metrics").text.splitlines()
        found = dict(line.rsplit(" ", 1) for line in lines if line.startswith("duet_visual_tokens"))
        return [float(found[f"duet_visual_tokens_{name}_total"]) for name in ("in", "kept", "saved")]

    def ask(self, *parts: Any, **options: Any) -> Any:
        body = {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": 4, "temperature": 0}
        more = {"add_special_tokens": True} | options.pop("extra_body", {})
        return self.client.chat.completions.create(model="demo", extra_body=more, **body | options)

    def post(self, **body: Any) -> httpx.Response:
        asked = {"model": "demo", "max_tokens": 2, "messages": [{"role": "user", "content": "How many ?"}]} | body
        return self.sent(json.dumps(asked))

    def sent(self, content: str | bytes, kind: str = "application/json") -> httpx.Response:
        return self.http.post("/v1/chat/completions", content=content, headers={"Content-Type": kind})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    try:
        made.wait()
        yield made
    finally:
        made.close()


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def sent(picture: Image.Image, format: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def parts(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of the references: its pictures, and its question without the template's words."""
    pictures = [image(sent(Image.open(FOLDER / f"{number}.png"))) for number in row["images"]]
    return [*pictures, text(row["prompt"].removeprefix("USER: ").rpartition("\n")[2].removesuffix(" ASSISTANT:"))]


def test_answers_are_those_of_the_engine_and_are_counted(server: Server) -> None:
    before = server.visual_tokens()
    for row in ROWS:
        answer = server.ask(*parts(row), logprobs=True, max_tokens=len(row["ids"]))
        got = [one.logprob for one in answer.choices[0].logprobs.content]
        assert got == pytest.approx(row["logprobs"][: len(got)], abs=1e-4) and len(got) >= len(row["ids"]) - 1
    visual = 196 * sum(len(row["images"]) for row in ROWS)
    kept = sum(fmean(row["per_layer"]) for row in ROWS if row["per_layer"])
    counted = [after - start for start, after in zip(before, server.visual_tokens(), strict=True)]
    assert counted == pytest.approx([visual, kept, visual - kept])


def noise(side: int) -> Image.Image:
    return Image.frombytes("RGB", (side, side), os.urandom(3 * side * side))


SCENE = sent(Image.new("RGB", (112, 112), "red"))
CUT = "data:image/png;base64," + base64.b64encode(base64.b64decode(sent(noise(40)).partition(",")[2])[:3000]).decode()
BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": [{"role": "user", "content": [*of, text("How many ?")]}]}, message)
    for of, message in (
        ([image("data:image/png;base64,!!!")], "is not written in base64"),
        ([image("data:image/png;base64,")], "these bytes are no picture"),
        ([image("data:text/html;base64,aGk=")], "is no picture in base64"),
        ([image(sent(noise(8), "PPM"))], "these bytes are no picture"),
        ([image(sent(noise(200)))], f"more than the {BYTES} bytes"),
        ([image(sent(Image.new("RGB", (500, 500))))], f"500x500 pixels: {PIXELS} are allowed"),
        ([image(SCENE)] * 3, "3 pictures: 2 are allowed"),
        ([image("http://127.0.0.1/a.png")], "is not at a public address"),
        ([image("file:///etc/passwd")], "is neither a data URL nor one of http or https"),
    )
]


def test_a_bad_request_is_told_why_and_harms_nobody(server: Server) -> None:
    wrong = []
    for changed, message in BAD:
        answer = server.post(**changed)
        if not 400 <= answer.status_code < 500 or message not in answer.json()["error"]["message"]:
            wrong.append((str(changed)[:200], answer.status_code, answer.text[:200]))
    assert wrong == []
    for content, kind, status in (
        (b"{", "application/json", 400),
        (b"hello", "text/plain", 415),
        (b"[1", "application/json", 400),
    ):
        assert server.sent(content, kind).status_code == status
    assert server.ask(image(SCENE), text("How many circles are there?")).choices[0].message.content is not None


def test_a_signal_lets_a_stream_end(server: Server) -> None:
    options = {"max_tokens": 300, "stream": True, "extra_body": {"ignore_eos": True}}
    pieces, reasons = 0, []
    for event in server.ask(image(SCENE), text("How many circles are there?"), **options):
        if not pieces:
            server.process.send_signal(signal.SIGTERM)
        pieces += 1
        reasons.append(event.choices[0].finish_reason)
    assert pieces > 250 and reasons[-1] == "length"
    assert server.process.wait(LONGEST) in (0, -signal.SIGTERM)
    assert not server.left()
