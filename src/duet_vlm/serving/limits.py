"""What a request may ask of the server, and how one that asks for more is told."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import DuetError, shown

VARIABLE = "DUET_LIMITS"  # of the environment, by which `duet serve` tells a server of vLLM
TEXT = 2**20  # characters of a conversation, and bytes of a request beside its pictures


@dataclass(frozen=True)
class Limits:
    """The limits of one server.

    Attributes:
        images: pictures of one request.
        image_bytes: bytes of one picture's file.
        image_pixels: width times height of one picture.
        prompt_tokens: tokens of a prompt, visual tokens before compression included.
        new_tokens: tokens of an answer.
        queue: requests that run or wait at one time.
        urls: whether pictures may be fetched from public addresses.
        body_seconds: how long a request may take to come in.
    """

    images: int = 8
    image_bytes: int = 10 * 2**20
    image_pixels: int = 25_000_000
    prompt_tokens: int = 16_384
    new_tokens: int = 1_024
    queue: int = 64
    urls: bool = False
    body_seconds: float = 60.0

    @property
    def body_bytes(self) -> int:
        """Bytes of a whole request: its pictures in base64, and its text."""
        return self.images * self.image_bytes * 4 // 3 + TEXT

    def environment(self) -> dict[str, str]:
        """The same for a process that is started."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def here(cls) -> Limits:
        """What `environment` told this process; the defaults where it told nothing.

        Raises:
            DuetError: the variable holds something else.
        """
        given = os.environ.get(VARIABLE)
        try:
            return cls() if given is None else cls(**json.loads(given))
        except (TypeError, ValueError) as error:
            raise DuetError(
                f"{VARIABLE}={shown(given)} holds no limits: take what `duet serve --print` shows, or unset it."
            ) from error


class RequestError(DuetError):
    """A request that is refused, in one sentence.

    Attributes:
        status: of HTTP.
        param: the name of the parameter that is wrong, where one is.
        code: OpenAI's name of the case, where there is one.
    """

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None):
        self.status, self.param, self.code = status, param, code
        super().__init__(message)


def status_of(error: Exception) -> int:
    """The status of HTTP that an error is answered with."""
    return error.status if isinstance(error, RequestError) else 400 if isinstance(error, DuetError) else 500


def error_body(error: Exception) -> dict[str, Any]:
    """What is answered to a request that fails, in the form of OpenAI's API; what is no DuetError is a bug."""
    status = status_of(error)
    message = str(error) if isinstance(error, DuetError) else "the server failed at this request: its log says where."
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {
        "error": {
            "message": message, "type": kind, "param": getattr(error, "param", None),
            "code": getattr(error, "code", None),
        }
    }  # fmt: skip
