"""The limits of `duet serve` in front of a server of vLLM: `vllm serve --middleware duet_vlm.serving.vllm_gate.Gate`.

vLLM limits how many pictures a request has, and their pixels. The gate adds what it does not: bytes, formats, how long
a request may take to come in, and where pictures are fetched from. It fetches those itself and hands on data URLs, so
that vLLM asks no other host. A request is read when vLLM asks for it, which is behind its check of keys.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import shown
from .body import read_body
from .limits import Limits, RequestError, error_body
from .messages import check_count
from .pictures import Fetch, opened, picture_bytes
from .remote import Remote

BODIES = ("POST", "PUT", "PATCH")
ASKED = ("messages", "input")  # where pictures stand: Chat Completions and Messages, Responses
PARTS = ("image_url", "input_image", None)


class Gate:
    """Checks requests before vLLM's server does.

    Args:
        app: what stands behind it.
        limits: of requests; those of the environment if None.
        fetch: what gets pictures from other hosts, where that is allowed.

    Raises:
        DuetError: the environment holds something that is no limits.
    """

    def __init__(self, app: ASGIApp, limits: Limits | None = None, fetch: Fetch | None = None):
        self.app, self.limits, self.fetch = app, limits or Limits.here(), fetch or Remote().fetch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, its pictures checked, or answer it with a status of 4xx."""
        if scope["type"] != "http" or scope["method"] not in BODIES or _empty(Request(scope)):
            await self.app(scope, receive, send)
            return
        entering = Entering(self, scope, receive, send)
        try:
            await self.app(scope, entering.receive, entering.send)
        except Exception:
            if entering.refused is None:
                raise
        if entering.refused is not None:
            error = entering.refused
            await JSONResponse(error_body(error), error.status)(scope, receive, send)

    def checked(self, body: Any) -> bytes:
        """What is handed on of a request's parsed body.

        Raises:
            RequestError: pictures that are too many, too large, none, or where nothing is fetched from.
        """
        if isinstance(body, Mapping):
            if body.get("features") is not None:
                raise RequestError("pictures as tensors are not taken here: leave features out.", param="features")
            found = [one for name in ASKED for one in pictures(body.get(name))]
            check_count(len(found), self.limits)
            for one in found:
                data = picture_bytes(one.url(), self.limits, self.fetch)
                # written anew, so that vLLM reads what was looked at, however it was written
                one.put(f"image/{opened(data, self.limits).format.lower()}", base64.b64encode(data).decode())
        return json.dumps(body).encode()


class Entering:
    """One request on its way in.

    Attributes:
        refused: why it is; what vLLM says to that is not sent.
    """

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send):
        self._gate, self._scope, self._receive, self._send = gate, scope, receive, send
        self._read = False
        self.refused: RequestError | None = None

    async def receive(self) -> Message:
        """The whole body at once; after that, whatever else the client does."""
        if self._read:
            return await self._receive()
        self._read = True
        try:
            body = await read_body(Request(self._scope, self._receive), self._gate.limits)
            data = await asyncio.to_thread(self._gate.checked, body)
        except ClientDisconnect:
            return {"type": "http.disconnect"}
        except RequestError as error:
            self.refused = error
            raise
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(self, message: Message) -> None:
        """Send an answer, unless the request was refused."""
        if self.refused is None:
            await self._send(message)


@dataclass(frozen=True)
class Picture:
    """A picture in a request's JSON.

    Attributes:
        part: the object that holds it.
        key: under which it stands there.
    """

    part: dict[str, Any]
    key: str

    def url(self) -> str:
        """Its URL.

        Raises:
            RequestError: it has none.
        """
        said = self.part[self.key]
        if self.key == "source":
            remote = said.get("type") == "url"
            media, said = said.get("media_type", "image/jpeg"), said.get("url" if remote else "data")
            if isinstance(said, str) and not remote:
                said = f"data:{media};base64,{said}"
        elif isinstance(said, Mapping):
            said = said.get("url")
        if not isinstance(said, str):
            raise RequestError(f"a picture has the url {shown(said)}: write data:image/png;base64,...")
        return said

    def put(self, media: str, data: str) -> None:
        """Put a file in base64 in its place."""
        if self.key == "source":
            self.part["source"] = {"type": "base64", "media_type": media, "data": data}
        elif isinstance(self.part[self.key], Mapping):
            self.part[self.key]["url"] = f"data:{media};base64,{data}"
        else:
            self.part[self.key] = f"data:{media};base64,{data}"


def pictures(value: Any) -> Iterator[Picture]:
    """The pictures in a conversation, however deep: parts of lists, as OpenAI's and Anthropic's APIs have them."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, list):
            for part in one:
                if isinstance(part, dict):
                    kind = part.get("type")
                    # vLLM looks for the key where there is no type, or a name by which it may know the picture
                    if part.get("image_url") is not None and (kind in PARTS or part.get("uuid") is not None):
                        yield Picture(part, "image_url")
                    elif kind == "image" and isinstance(part.get("source"), Mapping):
                        yield Picture(part, "source")
            left += one


def _empty(request: Request) -> bool:
    """Whether a request has no body, as those to pages that only do something."""
    return "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") == "0"
