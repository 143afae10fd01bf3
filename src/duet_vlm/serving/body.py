"""The body of a request: read up to its limit and in its time, and parsed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from starlette.requests import Request

from ..errors import shown
from ..inputs.text_files import NotJson, check_whole, may_be_torn, parse
from .limits import Limits, RequestError

JSON = "application/json"  # pages of other sites cannot send it unasked
READ_ON = 4  # times the limit, until a client that goes on sending is cut off


async def read_body(request: Request, limits: Limits) -> Any:
    """What the JSON of a request holds.

    Raises:
        RequestError: another type of content, too much, too slow, or no JSON.
        starlette.requests.ClientDisconnect: the client went away.
    """
    kind = request.headers.get("content-type", "")
    good = kind.partition(";")[0].strip().lower() == JSON
    data = await _received(request, limits, limits.body_bytes if good else 0)
    if not good:
        raise RequestError(f"content of type {shown(kind)} is not taken: send JSON with Content-Type: {JSON}.", 415)
    if data is None:
        raise RequestError(f"the request has more than the {limits.body_bytes} bytes that are allowed: send less.", 413)
    return await asyncio.to_thread(_parsed, data)


async def pass_over(request: Request, limits: Limits) -> None:
    """Let a request that is refused anyway come in, and keep nothing of it."""
    with contextlib.suppress(RequestError):
        await _received(request, limits, 0)


async def _received(request: Request, limits: Limits, most: int) -> bytes | None:
    """The body of a request, or None where it has more bytes than `most`.

    The rest of such a one is read, too: a client that still sends would never come to see why it is refused.
    """
    data, count = bytearray(), 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                count += len(part)
                if count <= most:
                    data += part
                elif count > READ_ON * limits.body_bytes:
                    return None
    except TimeoutError as error:
        raise RequestError(
            f"the request did not come in {limits.body_seconds:g} seconds: send it at once, or less of it.", 408
        ) from error
    return bytes(data) if count <= most else None


def _parsed(data: bytes) -> Any:
    try:
        text = data.decode()
        body = parse(text)
        if may_be_torn(text):
            check_whole(body)
    except UnicodeDecodeError as error:
        raise RequestError("the request is not written in UTF-8: encode its JSON so.") from error
    except NotJson as error:
        raise RequestError(f"the request is no JSON ({error}): mend it.") from error
    return body
