"""What the gate lets through to vLLM's server and what it refuses, in front of a page that reads its request."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from pictures import corners
from serving import data_url
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from duet_vlm.errors import DuetError
from duet_vlm.serving.limits import Limits
from duet_vlm.serving.vllm_gate import Gate, pictures

PICTURE = data_url(corners())  # 40x24
DATA = base64.b64decode(PICTURE.partition(",")[2])
FETCHED = "https://example.com/a.png"


class Behind:
    """Stands for vLLM's server: keeps what it is asked, and refuses who has no key before it reads."""

    def __init__(self, limits: Limits | None = None, fetch: Callable[[str, int], bytes] | None = None):
        self.read: list[bytes] = []
        self.refusals: list[Exception] = []
        routes = [Route("/{path:path}", self.page, methods=["GET", "POST", "DELETE"])]
        self.gate = Gate(Starlette(routes=routes), limits or Limits(), fetch)

    async def page(self, request: Request) -> Response:
        if request.headers.get("authorization") == "wrong":
            return JSONResponse({"error": "Unauthorized"}, 401)
        try:
            self.read.append(await request.body())
        except Exception as error:  # as FastAPI does
            self.refusals.append(error)
            raise HTTPException(400, "There was an error parsing the body") from error
        return JSONResponse({"taken": True})

    def ask(
        self, body: Any, method: str = "POST", size: int = 64, kind: str = "application/json", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of the answer; the body comes in parts of a size."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        parts = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
        events = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        events[-1]["more_body"] = False
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            return events.pop(0) if events else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        named = {"content-type": kind, "content-length": str(len(data)), **headers}
        scope = {
            "type": "http", "method": method, "path": "/v1/chat/completions", "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }  # fmt: skip
        asyncio.run(self.gate(scope, receive, send))
        starts = [message["status"] for message in sent if message["type"] == "http.response.start"]
        assert len(starts) == 1
        return starts[0], json.loads(b"".join(message.get("body", b"") for message in sent))


def chat(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}], **more}


def image(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}, **more}


def source(**said: Any) -> dict[str, Any]:
    return {"type": "image", "source": said}


ANTHROPIC = source(type="base64", media_type="image/png", data=PICTURE.partition(",")[2])
TAKEN = [
    chat({"type": "text", "text": "what ?"}),
    chat(image(PICTURE), {"type": "text", "text": "what ?"}, temperature=0.5),
    chat({"image_url": PICTURE}),
    chat(image(None, uuid="known before")["image_url"]),
    chat({"image_url": None, "uuid": "known before"}),
    chat(ANTHROPIC),
    chat({"type": "tool_result", "content": [ANTHROPIC]}),
    {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}]},
    {"prompt": f"what is {FETCHED} ?"},
    chat({"type": "text", "text": "hm"}, tools=[{"parameters": {"properties": {"image_url": {"type": "string"}}}}]),
    {"messages": "what ?"},
    [1, 2],
]


@pytest.mark.parametrize("body", TAKEN)
def test_what_is_good_goes_on_as_it_is(body: Any) -> None:
    behind = Behind()
    assert behind.ask(body) == (200, {"taken": True})
    assert [json.loads(data) for data in behind.read] == [body]


def test_pictures_are_found_wherever_they_stand() -> None:
    counts = [len([*pictures(body.get("messages") or body.get("input"))]) for body in TAKEN if isinstance(body, dict)]
    assert counts == [0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0]


REFUSED = [
    (chat(image("data:image/png;base64,!!!!")), 400, "is not written in base64"),
    (chat(image("data:image/png;base64,")), 400, "these bytes are no picture"),
    (chat(image("data:text/plain;base64,aGk=")), 400, "is no picture in base64"),
    (chat(image("data:image/png,abc")), 400, "is no picture in base64"),
    (chat(image(data_url(corners(), "PPM"))), 400, "these bytes are no picture"),
    (chat(image("file:///etc/passwd")), 400, "is neither a data URL nor one of http or https"),
    (chat(image(FETCHED)), 400, "pictures are not fetched from other hosts here"),
    (chat(image(7)), 400, "a picture has the url 7"),
    (chat({"type": "image_url", "image_url": 7}), 400, "a picture has the url 7"),
    (chat({"image_url": FETCHED}), 400, "pictures are not fetched"),
    (chat({"type": "text", "uuid": "1", "image_url": FETCHED}), 400, "pictures are not fetched"),
    (chat(source(type="url", url=FETCHED)), 400, "pictures are not fetched"),
    (chat(source(type="base64", data="!")), 400, "is not written in base64"),
    (chat(source(data=None)), 400, "a picture has the url None"),
    ({"input": [{"content": [{"type": "input_image", "image_url": FETCHED}]}]}, 400, "pictures are not fetched"),
    ({"messages": [[chat(image(FETCHED))["messages"][0]]]}, 400, "pictures are not fetched"),
    (chat(*[image(PICTURE)] * 9), 400, "the request has 9 pictures: 8 are allowed"),
    ({"features": {"mm_hashes": {}}}, 400, "pictures as tensors are not taken here"),
    (b'{"messages": [', 400, "the request is no JSON"),
    (b'{"temperature": NaN}', 400, "the request is no JSON"),
    (b'{"a": 1, "a": 2}', 400, "the request is no JSON"),
    (b"\xff\xfe", 400, "the request is not written in UTF-8"),
    (b"[" * 9000 + b"]" * 9000, 400, "nested too deeply"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSED)
def test_what_is_refused(body: Any, status: int, message: str) -> None:
    behind = Behind()
    got, said = behind.ask(body)
    assert got == status and message in said["error"]["message"] and said["error"]["type"] == "invalid_request_error"
    assert not behind.read and len(behind.refusals) == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(image_bytes=len(DATA) - 1), f"more than the {len(DATA) - 1} bytes"),
        (Limits(image_pixels=959), "the picture has 40x24 pixels: 959 are allowed"),
    ],
)
def test_what_is_too_large(limits: Limits, message: str) -> None:
    for part in (image(PICTURE), ANTHROPIC):
        got, said = Behind(limits).ask(chat(part))
        assert got == 413 and message in said["error"]["message"]
    exact = Limits(image_bytes=len(DATA), image_pixels=960)
    assert Behind(exact).ask(chat(image(PICTURE)))[0] == 200


def test_a_body_that_is_too_large_is_not_kept() -> None:
    limits = Limits(images=0)
    behind = Behind(limits)
    whole = chat({"type": "text", "text": "a" * limits.body_bytes})
    got, said = behind.ask(whole, size=2**16)
    assert got == 413 and f"more than the {limits.body_bytes} bytes" in said["error"]["message"] and not behind.read


def test_another_type_of_content_is_refused() -> None:
    got, said = Behind().ask(b"abc", kind="multipart/form-data")
    assert got == 415 and "send JSON" in said["error"]["message"]


def test_a_request_that_does_not_come_in_is_given_up() -> None:
    behind = Behind(Limits(body_seconds=0))
    got, said = behind.ask(chat())
    assert got == 408 and "did not come in 0 seconds" in said["error"]["message"]


def test_who_has_no_key_is_not_read() -> None:
    """Nothing is fetched or decoded for somebody whom vLLM would send away."""
    asked: list[str] = []
    behind = Behind(Limits(urls=True), lambda url, most: asked.append(url) or DATA)
    assert behind.ask(chat(image(FETCHED)), authorization="wrong") == (401, {"error": "Unauthorized"})
    assert not asked and not behind.read


@pytest.mark.parametrize("part", [image(FETCHED), {"image_url": FETCHED}, source(type="url", url=FETCHED)])
def test_pictures_are_fetched_where_that_is_allowed(part: dict[str, Any]) -> None:
    asked: list[tuple[str, int]] = []

    def fetch(url: str, most: int) -> bytes:
        asked.append((url, most))
        return DATA

    behind = Behind(Limits(urls=True, image_bytes=5000), fetch)
    assert behind.ask(chat(part))[0] == 200
    assert asked == [(FETCHED, 5000)]
    (read,) = behind.read
    if "source" in part:
        assert json.loads(read) == chat(ANTHROPIC)
    else:
        assert read.decode().count(PICTURE) == 1 and FETCHED not in read.decode()


@pytest.mark.parametrize("url", ["http://127.0.0.1/a.png", "http://[::1]/a.png", "http://169.254.169.254/a.png"])
def test_private_addresses_are_never_asked(url: str) -> None:
    got, said = Behind(Limits(urls=True)).ask(chat(image(url)))
    assert got == 400 and "is not at a public address" in said["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_pages_without_a_body_are_let_through(method: str) -> None:
    assert Behind().ask(b"", method=method)[0] == 200
    assert Behind().ask(b"", kind="")[0] == 200


def test_a_client_that_goes_away_ends_its_request() -> None:
    behind = Behind()

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"9")],
    }  # fmt: skip
    asyncio.run(behind.gate(scope, receive, send))
    assert [type(error).__name__ for error in behind.refusals] == ["ClientDisconnect"] and not behind.read


def test_the_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUET_LIMITS", Limits(images=2).environment()["DUET_LIMITS"])
    assert Gate(Starlette()).limits == Limits(images=2)
    monkeypatch.setenv("DUET_LIMITS", "{")
    with pytest.raises(DuetError, match="holds no limits"):
        Gate(Starlette())
