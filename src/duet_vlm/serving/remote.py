"""Pictures from other hosts, for a server that is told to fetch them: public addresses only, and only so much.

A name is resolved once, every address it has must be public, and the connection goes to the address that was looked at,
so a name that changes its mind in between gains nothing. Redirects go the same way.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from ..errors import reason, short, shown
from .limits import RequestError
from .pictures import too_large

REDIRECTS = (301, 302, 303, 307, 308)
TUNNELS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
CHUNK = 2**16


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system finds them.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether anybody on the internet could ask the same address; addresses that wrap another one are not."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # an address with a zone is one of this link
        return False
    if isinstance(found, ipaddress.IPv6Address) and (
        found.ipv4_mapped is not None or any(found in network for network in TUNNELS)
    ):
        return False
    closed = found.is_private or found.is_multicast or found.is_reserved or found.is_unspecified or found.is_loopback
    return found.is_global and not closed and not found.is_link_local


@dataclass(frozen=True)
class Remote:
    """Fetches what stands behind a URL.

    Attributes:
        seconds: for one answer, from the connection to its last byte.
        hops: redirects that are followed.
        resolve: (host, port) -> its addresses.
        allowed: which addresses may be asked.
    """

    seconds: float = 10.0
    hops: int = 3
    resolve: Callable[[str, int], list[str]] = resolve
    allowed: Callable[[str], bool] = is_public

    def fetch(self, url: str, most: int) -> bytes:
        """The bytes behind a URL of http or https.

        Raises:
            RequestError: no such URL, an address that is not public, no answer, or one of more than `most` bytes.
        """
        for _ in range(self.hops + 1):
            found = self._ask(url, most)
            if isinstance(found, bytes):
                return found
            url = found
        raise RequestError(f"url {shown(url)} is behind more than {self.hops} redirects: give the last of them.")

    def _ask(self, url: str, most: int) -> bytes | str:
        """The bytes behind a URL, or the URL that it redirects to."""
        parts, port = _parts(url)
        connection = _connection(parts, port, self._address(url, parts, port), self.seconds)
        path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        try:
            with contextlib.closing(connection), _deadline(connection, self.seconds):
                connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "duet-vlm"})
                answer = connection.getresponse()
                if answer.status in REDIRECTS:
                    return urljoin(url, answer.getheader("Location", ""))
                if answer.status != 200:
                    raise RequestError(f"url {shown(url)} answers with status {answer.status}: send a data URL.")
                return _read(answer, most)
        except TimeoutError as error:
            raise RequestError(f"url {shown(url)} took more than {self.seconds:g} seconds: send a data URL.") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, RequestError):
                raise
            raise RequestError(f"url {shown(url)} cannot be had ({reason(error)}): send a data URL.") from error

    def _address(self, url: str, parts: SplitResult, port: int) -> str:
        host = str(parts.hostname)
        try:
            addresses = self.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise RequestError(f"host {short(host)!r} has no address ({reason(error)}): send a data URL.") from error
        if not addresses or not all(map(self.allowed, addresses)):
            raise RequestError(f"url {shown(url)} is not at a public address, which alone is asked: send a data URL.")
        return addresses[0]


def _parts(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError) as error:
        raise RequestError(f"url {shown(url)} is none of http or https: give one of them or a data URL.") from error
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise RequestError(f"url {shown(url)} has no host or a user's name: write https://host/picture.png.")
    if not url.isascii() or any(sign <= " " for sign in url):
        raise RequestError(f"url {shown(url)} has signs that URLs write as %20 and the like: write it so.")
    return parts, port


def _connection(parts: SplitResult, port: int, address: str, seconds: float) -> _Plain:
    host = str(parts.hostname)
    if parts.scheme == "http":
        return _Plain(host, port, address, seconds)
    return _Secure(host, port, address, seconds)


class _Plain(http.client.HTTPConnection):
    """A connection to the address that was looked at, whatever the host's name leads to by now.

    Attributes:
        line: its socket, also once the answer's header has told that it will be closed.
    """

    line: socket.socket | None = None

    def __init__(self, host: str, port: int, address: str, seconds: float):
        super().__init__(host, port, timeout=seconds)
        self.address = address

    def connect(self) -> None:
        self.sock = self.line = socket.create_connection((self.address, self.port), self.timeout)


class _Secure(_Plain, http.client.HTTPSConnection):
    """The same with the host's certificate checked."""

    def connect(self) -> None:
        super().connect()
        self.sock = self.line = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


@contextlib.contextmanager
def _deadline(connection: _Plain, seconds: float) -> Iterator[None]:
    """End the connection when time is up, also with a host that sends a byte now and then."""
    over = threading.Event()

    def end() -> None:
        over.set()
        if connection.line is not None:
            with contextlib.suppress(OSError):  # it ended by itself
                socket.socket.shutdown(connection.line, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if over.is_set():
            raise TimeoutError


def _read(answer: http.client.HTTPResponse, most: int) -> bytes:
    data = bytearray()
    while part := answer.read1(CHUNK):
        data += part
        if len(data) > most:
            raise too_large(most)
    return bytes(data)
