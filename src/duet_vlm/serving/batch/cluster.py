"""Ray: started here or found elsewhere, quiet, closed to the network, and shared out among the workers."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import DuetError, reason

STORE = 100 * 2**20  # bytes of shared memory for objects: records and answers are text
STDERR = 2  # where C++ writes
# where the user has not said otherwise
EVERYWHERE = {"RAY_USAGE_STATS_ENABLED": "0"}
LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's way to say: listen on 127.0.0.1 alone


@dataclass(frozen=True)
class Share:
    """What each worker gets.

    Attributes:
        workers: how many there are.
        cpus: what Ray counts for each; fewer than there are, as other parts of a run need some, too.
        gpus: the same of GPUs; with these, no CPUs.
        threads: the CPU threads that each computes on.
    """

    workers: int
    cpus: float
    gpus: float
    threads: int


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The `ray` module, connected: to processes of our own that end with the block, or to a cluster.

    A Ray that this process is connected to already is used as it is.

    Args:
        address: of a cluster, as `ray.init` takes it; None starts one on this machine, whatever RAY_ADDRESS says.

    Raises:
        DuetError: Ray is not installed, or there is no cluster at that address.
    """
    with _environment(EVERYWHERE | (LOCAL if address is None else {})):
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise DuetError("duet batch needs Ray: install it with pip install 'duet-vlm[batch]'.") from error
        if ray.is_initialized():
            yield ray
            return
        here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE}
        with _without_its_words():
            _check_address(address)
            try:
                ray.init(address=address or "local", log_to_driver=False, **(here if address is None else {}))
            except (OSError, RuntimeError, ValueError) as error:
                raise _unreachable(address, error) from error
            try:
                with _stoppable():
                    yield ray
            finally:
                ray.shutdown()


def share(ray: Any, workers: int | None, device: str | None, threads: int | None) -> Share:
    """How a cluster is shared out.

    Args:
        ray: connected.
        workers: how many; None for one per GPU, and without GPUs for one per machine.
        device: None takes the GPUs where there are any.
        threads: of each worker; None for its share of the CPUs.

    Raises:
        DuetError: GPUs are asked for and there is none, or one is asked for by its number.
    """
    there = ray.cluster_resources()
    cpus, gpus = there.get("CPU", 1.0), there.get("GPU", 0.0)
    kind, _, number = (device or "").partition(":")
    if number:
        raise DuetError(f"device {device!r} names one of several, and Ray gives each worker its own: give {kind}.")
    if kind == "cuda" and not gpus:
        raise DuetError("device 'cuda' is not available: Ray knows of no GPU here, leave out --device.")
    on_gpus = bool(gpus) and kind in ("", "cuda")
    if workers is None:
        workers = int(gpus) if on_gpus else sum(1 for node in ray.nodes() if node["Alive"])
    return Share(
        workers,
        cpus=0 if on_gpus else _floor(min(0.5, cpus / 2 / workers)),
        gpus=_floor(1 / math.ceil(workers / gpus)) if on_gpus else 0,
        threads=threads or max(1, int(cpus // workers)),
    )


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, which schedulers send, is Ctrl-C; Ray's own handler may abort the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_address(address: str | None) -> None:
    """Ray itself tries for minutes to reach a cluster that is not there."""
    found = re.fullmatch(r"(?:ray://)?\[?([^\]]+?)\]?:(\d{1,5})", address or "")
    if found is not None:
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, error) from error


def _unreachable(address: str | None, error: Exception) -> DuetError:
    where = "started on this machine" if address is None else f"reached at {address!r}"
    return DuetError(
        f"Ray cannot be {where} ({reason(error)}): give --address HOST:PORT of a running cluster, or none to start it."
    )


@contextlib.contextmanager
def _without_its_words() -> Iterator[None]:
    """What Ray prints of workers that ended, and logs from C++, is kept from the terminal; our own stderr is not."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        kept = stack.enter_context(os.fdopen(os.dup(STDERR), "w", buffering=1, encoding="utf-8"))
        with contextlib.suppress(OSError):  # one that is no file
            if sys.stderr.fileno() == STDERR:
                stack.enter_context(contextlib.redirect_stderr(kept))
        os.dup2(nowhere.fileno(), STDERR)
        stack.callback(os.dup2, kept.fileno(), STDERR)
        yield


def _floor(amount: float) -> float:
    """In Ray's steps of a ten-thousandth."""
    return math.floor(amount * 10_000) / 10_000


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that are not set, and take them back."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
