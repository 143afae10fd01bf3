"""The bytes of a request's pictures: limits first, pixels last."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from ..errors import DuetError, shown
from ..inputs.images import TooManyPixels, open_bytes
from .limits import Limits, RequestError

Fetch = Callable[[str, int], bytes]
"""(URL, the most bytes) -> the bytes behind it."""


def read_picture(url: str, limits: Limits, fetch: Fetch) -> Any:
    """A PIL picture whose header was read and whose pixels were not.

    Args:
        url: "data:image/...;base64,..." or, where that is allowed, one of http or https.
        fetch: what gets the latter.

    Raises:
        RequestError: a URL of another kind, no picture, or one of too many bytes or pixels.
    """
    return opened(picture_bytes(url, limits, fetch), limits)


def picture_bytes(url: str, limits: Limits, fetch: Fetch) -> bytes:
    """The file behind a URL, which `read_picture` opens.

    Raises:
        RequestError: a URL of another kind, or too many bytes.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        return _decoded(url, limits)
    if scheme not in ("http", "https"):
        raise RequestError(f"url {shown(url)} is neither a data URL nor one of http or https: give one of them.")
    if not limits.urls:
        raise RequestError(
            "pictures are not fetched from other hosts here: send the picture as a data URL, or start the server "
            "with --allow-urls."
        )
    return fetch(url, limits.image_bytes)


def opened(data: bytes, limits: Limits) -> Any:
    """A PIL picture whose header was read and whose pixels were not.

    Raises:
        RequestError: no picture, or one of too many pixels.
    """
    try:
        return open_bytes(data, limits.image_pixels)
    except DuetError as error:
        raise RequestError(str(error), 413 if isinstance(error, TooManyPixels) else 400) from error


def _decoded(url: str, limits: Limits) -> bytes:
    kind, comma, text = url.partition(",")
    media, *options = kind[len("data:") :].lower().split(";")
    if not comma or "base64" not in options or (media and not media.startswith("image/")):
        raise RequestError(f"url {shown(url)} is no picture in base64: write data:image/png;base64,...")
    if len(text) // 4 * 3 > limits.image_bytes + 2:  # the last four characters may stand for one byte
        raise too_large(limits.image_bytes)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"url {shown(url)} is not written in base64 ({error}): encode the picture again.") from error
    if len(data) > limits.image_bytes:
        raise too_large(limits.image_bytes)
    return data


def too_large(most: int) -> RequestError:
    """What is said of a picture of too many bytes."""
    return RequestError(f"a picture has more than the {most} bytes that are allowed: give a smaller one.", 413)
