"""Every bad request is answered with a status of 4xx and one sentence in the form of OpenAI's API."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import tiny
from pictures import noise
from PIL import Image
from saved import config, processor
from serving import Served, data_url, serve, user
from transformers import LlavaForConditionalGeneration

from duet_vlm import DuetConfig
from duet_vlm.serving.limits import Limits

LIMITS = Limits(images=2, image_bytes=20_000, image_pixels=20_000, prompt_tokens=420, new_tokens=40)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    model = LlavaForConditionalGeneration(config()).eval()
    tiny.randomize(model)
    with serve(model, processor(), DuetConfig.preset("duet", model=model, keep=0.5), LIMITS) as served:
        yield served


def png(width: int, height: int, data: bytes = b"") -> str:
    """A PNG that is a header and no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [head, b"IDAT" + (data or zlib.compress(b"")), b"IEND"]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts
    )
    return "data:image/png;base64," + base64.b64encode(file).decode()


def plain() -> Image.Image:
    return Image.new("RGB", (112, 112), "red")


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content, **more}]}


def part(kind: str, **more: Any) -> list[dict[str, Any]]:
    return [{"type": kind, **more}]


POSTSCRIPT = "data:image/png;base64," + base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode()
NOISE = data_url(noise(200, 99))

BAD: list[tuple[dict[str, Any], int, str]] = [
    # parameters
    ({"model": None}, 400, "model is missing: give 'demo'"),
    ({"model": "gpt"}, 404, "model 'gpt' is not served here: give 'demo'."),
    ({"max_tokens": 0}, 400, "max_tokens 0 must be a whole number from 1 to 40."),
    ({"max_tokens": 41}, 400, "max_tokens 41 must be"),
    ({"max_tokens": True}, 400, "max_tokens True must be"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, 400, "differ"),
    ({"temperature": 2.5}, 400, "temperature 2.5 must be a number from 0 to 2."),
    ({"temperature": "hot"}, 400, "temperature 'hot'"),
    ({"top_p": 0}, 400, "top_p 0 must be a number above 0 and at most 1."),
    ({"seed": 1.5}, 400, "seed 1.5"),
    ({"seed": 2**70}, 400, "seed about 10**21"),
    ({"stop": ""}, 400, "stop '' must be"),
    ({"stop": ["a"] * 5}, 400, "stop has 5 texts: 4 are allowed"),
    ({"stop": 7}, 400, "stop 7"),
    ({"stream": "yes"}, 400, "stream 'yes' must be true or false."),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options is for streams"),
    ({"stream": True, "stream_options": {"more": True}}, 400, "stream_options"),
    ({"n": 2}, 400, "n 2 is not possible with this server: leave it out or give 1."),
    ({"logprobs": True}, 400, "logprobs True"),
    ({"presence_penalty": 0.5}, 400, "presence_penalty 0.5"),
    ({"tools": [{"type": "function"}]}, 400, "tools"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format"),
    ({"temprature": 1}, 400, "knows no parameter 'temprature': did you mean temperature?"),
    ({"top_k": 3}, 400, "knows no parameter 'top_k'"),
    # messages
    ({"messages": None}, 400, "messages None must be a list"),
    ({"messages": []}, 400, "messages [] must be a list"),
    ({"messages": ["hello"]}, 400, "messages[0] must be an object"),
    ({"messages": [{"role": "tool", "content": "7"}]}, 400, "the role 'tool': choose one of system, user, assistant."),
    (said(None), 400, "messages[0] has the content None"),
    (said([]), 400, "messages[0] has the content []"),
    (said("find the ring .", name="Ada"), 400, "messages[0] has 'name'"),
    (said(part("text")), 400, "messages[0].content[0] has the text None"),
    (said(part("input_audio", input_audio={})), 400, "is of type 'input_audio': give text or image_url."),
    (said(part("video_url", video_url={})), 400, "is of type 'video_url'"),
    (said(part("image_url")), 400, "has no url"),
    (said(part("image_url", image_url={"url": NOISE, "detail": "low"})), 400, "has the detail 'low'"),
    ({"messages": [{"role": "system", "content": user(plain())["content"]}]}, 400, "a picture of the system"),
    (said("find <image> ."), 400, "holds '<image>'"),
    # pictures
    ({"messages": [user(*[plain()] * 3)]}, 400, "the request has 3 pictures: 2 are allowed"),
    ({"messages": [user("file:///etc/hosts")]}, 400, "is neither a data URL nor one of http or https"),
    ({"messages": [user("http://127.0.0.1/secret.png")]}, 400, "pictures are not fetched from other hosts here"),
    ({"messages": [user("data:image/png,abc")]}, 400, "is no picture in base64"),
    ({"messages": [user("data:text/plain;base64,YWJj")]}, 400, "is no picture in base64"),
    ({"messages": [user("data:image/png;base64,a*c=")]}, 400, "is not written in base64"),
    ({"messages": [user("data:image/png;base64,YWJj")]}, 400, "these bytes are no picture"),
    ({"messages": [user(POSTSCRIPT)]}, 400, "these bytes are no picture"),
    ({"messages": [user(NOISE)]}, 413, "more than the 20000 bytes"),
    ({"messages": [user(png(201, 100))]}, 413, "the picture has 201x100 pixels: 20000 are allowed"),
    ({"messages": [user(png(60_000, 60_000))]}, 413, "more pixels than are ever read: 20000 are allowed"),
    ({"messages": [user(png(100, 100))]}, 400, "truncated or damaged"),
    # lengths
    ({"messages": [user("find " * 450)]}, 400, "tokens: 420 are allowed, shorten it"),
    ({"messages": [user(plain(), plain(), "find " * 40)]}, 400, "tokens: 420 are allowed"),
    ({"messages": [user("a" * (2**20 + 1))]}, 400, "1048577 characters: 1048576 are allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "message"), BAD, ids=[f"{n}-{row[2][:30]}" for n, row in enumerate(BAD)])
def test_a_bad_request_is_told_why(served: Served, body: dict[str, Any], status: int, message: str) -> None:
    answer = served.post(body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert message in error["message"] and error["message"][-1] in ".?" and "\n" not in error["message"]


JSON = {"Content-Type": "application/json"}
GOOD = json.dumps({"model": "demo", "messages": [user("find the ring .")], "max_tokens": 1}).encode()


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"{", JSON, 400, "the request is no JSON"),
        (b"", JSON, 400, "the request is no JSON"),
        (b"[]", JSON, 400, "a request is a JSON object"),
        (b'{"model": "demo", "model": "demo"}', JSON, 400, "key 'model' is given twice"),
        (b'{"seed": NaN}', JSON, 400, "NaN is no number of JSON"),
        (b"[" * 100_000, JSON, 400, "nested too deeply"),
        (b'{"model": "\xff"}', JSON, 400, "not written in UTF-8"),
        (b'{"model": "\\ud800"}', JSON, 400, "half a character"),
        (b" " * (LIMITS.body_bytes + 1), JSON, 413, f"more than the {LIMITS.body_bytes} bytes"),
        (GOOD, {"Content-Type": "text/plain"}, 415, "content of type 'text/plain' is not taken"),
        (GOOD, {"Content-Type": "application/json; charset=utf-8"}, 200, ""),
    ],
)
def test_a_body_that_is_no_request(
    served: Served, content: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    answer = served.post(content=content, headers=headers)
    assert answer.status_code == status and message in answer.text, answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/chat/completions", 405),
        ("POST", "/completions", 404),
        ("GET", "/models/other", 404),
        ("OPTIONS", "/chat/completions", 405),
        ("GET", "/", 404),
    ],
)
def test_other_pages_are_none(served: Served, method: str, path: str, status: int) -> None:
    answer = served.http.request(method, path)
    assert answer.status_code == status and answer.json()["error"]["message"].endswith(".")


def test_clients_see_their_own_errors(served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="420 are allowed") as caught:
        served.ask(user("find " * 450))
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "messages"
    with pytest.raises(openai.BadRequestError, match="420 are allowed"):  # before the stream begins
        served.ask(user("find " * 450), stream=True)
    with pytest.raises(openai.NotFoundError):
        served.client.models.retrieve("other")


def test_what_changes_no_answer_is_passed_over(served: Served) -> None:
    idle = {"user": "Ada", "metadata": {"a": "b"}, "store": False, "n": 1, "presence_penalty": 0.0, "tools": []}
    idle |= {"logprobs": False, "response_format": {"type": "text"}, "top_p": None, "logit_bias": {}}
    answers = [served.post(body).json()["choices"] for body in (idle, {}, {"max_completion_tokens": 2})]
    assert answers[0] == answers[1] == answers[2] and answers[0][0]["message"]["content"]


def test_an_answer_ends_with_the_models_context() -> None:
    small = config()
    small.text_config.max_position_embeddings = 230
    model = LlavaForConditionalGeneration(small).eval()
    tiny.randomize(model)
    model.generation_config.eos_token_id = None  # nothing else ends it
    with serve(model, processor(), DuetConfig.preset("duet", model=model, keep=0.5)) as served:
        question = user(plain(), "find the ring .")
        answer = served.ask(question, max_tokens=None)
        assert answer.usage.total_tokens == 230 and answer.choices[0].finish_reason == "length"
        left = answer.usage.completion_tokens
        assert served.ask(question, max_tokens=left).usage.completion_tokens == left
        with pytest.raises(openai.BadRequestError, match=f"leaves {left} of the model's context to the answer"):
            served.ask(question, max_tokens=left + 1)
        with pytest.raises(openai.BadRequestError, match="tokens: 229 are allowed"):
            served.ask(user(plain(), "find " * 40))


def test_refusals_are_counted(served: Served) -> None:
    before = served.metrics().get('duet_requests_total{status="413"}', 0)
    served.post({"messages": [user(NOISE)]})
    assert served.metrics()['duet_requests_total{status="413"}'] == before + 1
