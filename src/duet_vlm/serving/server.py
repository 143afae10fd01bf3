"""The transformers engine as a server: the model loaded and compressed, listening until a signal ends it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette

from ..engine.handle import Duet
from ..errors import DuetError
from .answering import Answerer
from .app import Pages
from .limits import Limits
from .metrics import Metrics
from .pictures import Fetch
from .remote import Remote
from .worker import Worker


def listening(host: str, port: int) -> socket.socket:
    """Take a port before anything else is done, so that one that is taken is refused at once.

    Args:
        host: a name or address of this machine.
        port: 0 for any that is free.

    Raises:
        DuetError: the host is none of this machine's, or the port cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise DuetError(f"host {host!r} is unknown here ({error}): give an address of this machine.") from error
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError as error:
        taken.close()
        why = error.strerror or str(error)
        raise DuetError(f"port {port} of {host!r} cannot be had ({why}): give another --port or --host.") from error
    return taken


def url_of(taken: socket.socket) -> str:
    """What to give a client as its base URL."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


class Serving:
    """A compressed model and all that answers for it.

    Args:
        model: the name under which it is served.
        handle: of the compression that is on it.
        processor: its processor.
        limits: of requests.
        fetch: what gets pictures from other hosts, where that is allowed.
    """

    def __init__(self, model: str, handle: Duet, processor: Any, limits: Limits, fetch: Fetch | None = None):
        self.metrics = Metrics()
        self.worker = Worker(Answerer(handle, processor, limits), limits, self.metrics)
        self.app: Starlette = Pages(model, self.worker, self.metrics, limits, fetch or Remote().fetch).app()

    def server(self) -> uvicorn.Server:
        """A server of the application, which on SIGTERM or SIGINT takes nothing more and finishes what it has."""
        return uvicorn.Server(
            uvicorn.Config(
                self.app,
                log_config=None,
                access_log=False,
                ws="none",
                lifespan="off",
                proxy_headers=False,
                server_header=False,
            )
        )

    def run(self, taken: socket.socket, ready: Callable[[], None]) -> None:
        """Serve until a signal comes; a second SIGINT gives up what still runs.

        Args:
            taken: what `listening` took.
            ready: called when requests are about to be taken.
        """
        server = self.server()
        ready()
        try:
            # uvicorn raises the signal again once all is answered
            with contextlib.suppress(KeyboardInterrupt):
                server.run(sockets=[taken])
        finally:
            self.worker.close()
