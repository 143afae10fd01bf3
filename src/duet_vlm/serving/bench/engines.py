"""Engines of vLLM in processes of their own, of which one works at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import IO, Any, NoReturn

from ...errors import DuetError

STOP = 60.0  # seconds that an engine has to end by itself
_KILLED = re.compile(rf"Worker proc .* died unexpectedly \(exit code: -{signal.SIGKILL:d}\)")


class Engine:
    """A process of `process.py`. It ends with `close`, and by itself when this process is gone.

    Attributes:
        name: of the setting that it serves, for errors.
        made: what it said of itself when it was ready.
    """

    def __init__(self, name: str, job: dict[str, Any], environment: dict[str, str], log: IO[str]):
        self.name = name
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=os.environ | environment, text=True,
            encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        self._ready = False
        try:
            self.made: dict[str, Any] = self.ask(job)
            self._ready = True
        except BaseException:
            self.close()
            raise

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Write a line, and wait for the answer.

        Raises:
            DuetError: the engine ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise DuetError(f"vLLM with {self.name} ended ({last_words(self._log)}): look for what it could not do.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, and what it started."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()
        try:
            process.wait(STOP if self._ready else 0)
        except subprocess.TimeoutExpired:
            process.kill()
        finally:
            # whatever is left of its group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_words(log: Iterable[str]) -> str:
    """Why an engine ended, by the lines of its log: the first error that vLLM tells of, as others follow from it."""
    lines = [line.strip() for line in log]
    if any(_KILLED.search(line) for line in lines):
        return "its worker was killed, which a system does that has no memory left"
    errors = [line.rpartition("] ")[2] for line in lines if "Error: " in line]
    # who waits for another process that ends says so, before or after that one's reason
    errors = [error for error in errors if not error.endswith("Error: cancelled")] or errors
    return (errors or lines[-1:] or ["it said nothing"])[0].rstrip(".")


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """A function that starts an `Engine` of a name, a job and an environment; all of them end together.

    They end on SIGTERM, too, which ends this process as an exception then, so that others clean up as well.
    """
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _leave))
        # vLLM leaves its sockets behind
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="duet-", ignore_cleanup_errors=True))

        def start(name: str, job: dict[str, Any], environment: dict[str, str]) -> Engine:
            log = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
            engine = Engine(name, job, environment | {"VLLM_RPC_BASE_PATH": sockets}, log)
            stack.callback(engine.close)
            return engine

        yield start


def _leave(number: int, _: Any) -> NoReturn:
    raise SystemExit(128 + number)
