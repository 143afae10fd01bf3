"""A compressed model behind a real server on a free port of this machine, in a thread of the test's own process."""

from __future__ import annotations

import base64
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import numpy as np
from openai import OpenAI
from PIL import Image

import duet_vlm
from duet_vlm import DuetConfig
from duet_vlm.demo.scenes import make_scene
from duet_vlm.serving.limits import Limits
from duet_vlm.serving.pictures import Fetch
from duet_vlm.serving.server import Serving, listening, url_of

LONGEST = 60.0  # seconds after which something that should have happened never will


def data_url(picture: Image.Image, format: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def scene(seed: int) -> Image.Image:
    return Image.fromarray(make_scene(np.random.default_rng(seed)).image)


def user(*parts: str | Image.Image) -> dict[str, Any]:
    """A message of texts and pictures; a text that is a URL stands for a picture."""
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Image.Image):
            part = data_url(part)
        if re.match(r"[a-z]+:\S+$", part):
            content.append({"type": "image_url", "image_url": {"url": part}})
        else:
            content.append({"type": "text", "text": part})
    return {"role": "user", "content": content}


class Served:
    """A server and its clients."""

    def __init__(self, name: str, server: Any, url: str):
        self.name, self.server, self.url = name, server, url
        self.client = OpenAI(base_url=url, api_key="none", timeout=LONGEST, max_retries=0)
        self.http = httpx2.Client(base_url=url, timeout=LONGEST, trust_env=False)

    def ask(self, *messages: dict[str, Any], **options: Any) -> Any:
        options = {"max_tokens": 8, "temperature": 0, **options}
        return self.client.chat.completions.create(model=self.name, messages=list(messages), **options)

    def post(self, body: Any = None, **more: Any) -> httpx2.Response:
        """A request that need not be a good one; `body` goes over what a good one has."""
        whole = {"model": self.name, "messages": [user("find the ring .")], "max_tokens": 2, **(body or {})}
        return self.http.post("/chat/completions", **(more or {"json": whole}))

    def metrics(self) -> dict[str, float]:
        text = self.http.get(self.url.removesuffix("/v1") + "/metrics").text
        return {name: float(value) for name, value in re.findall(r"^([a-z]\S*) (\S+)$", text, re.MULTILINE)}


@contextmanager
def serve(
    model: Any, processor: Any, config: DuetConfig, limits: Limits | None = None, **more: Fetch
) -> Iterator[Served]:
    """Serve a model as "demo" until the block ends, which is when all is answered."""
    handle = duet_vlm.apply(model, config, tokenizer=processor)
    serving = Serving("demo", handle, processor, limits or Limits(), **more)
    taken, server = listening("127.0.0.1", 0), serving.server()
    url = url_of(taken)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    try:
        until(lambda: server.started)
        served = Served("demo", server, url)
        yield served
        served.client.close()
        served.http.close()
    finally:
        server.should_exit = True
        thread.join()
        serving.worker.close()
        handle.remove()


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that is going to happen."""
    end = time.monotonic() + LONGEST
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


class Gate:
    """Holds a model's forward passes until they are let through, each or all of them."""

    def __init__(self, model: Any):
        self._passes = threading.Semaphore(0)
        self.open = False
        self.seen = 0
        self._hook = model.register_forward_pre_hook(self._wait)

    def _wait(self, *_: Any) -> None:
        self.seen += 1
        if not self.open:
            assert self._passes.acquire(timeout=LONGEST)

    def let(self, count: int = 1) -> None:
        self._passes.release(count)

    def remove(self) -> None:
        self.open = True
        self._passes.release(1000)
        self._hook.remove()
