"""Requests one after the other, on a thread of their own, in the order in which they came."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .answering import Answer, Answerer
from .limits import Limits, RequestError
from .metrics import Metrics
from .requests import ChatRequest


class Gone(Exception):
    """The client went away before its turn came."""


class Job:
    """A request that waits for its turn or runs. Made and awaited on the server's event loop.

    Attributes:
        future: of the answer.
    """

    future: Future[Answer]

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._gone = threading.Event()

    def put(self, piece: str | None) -> None:
        """Give a piece of the answer's text on, from the worker's thread; None for its end."""
        with contextlib.suppress(RuntimeError):  # a loop that a second signal ended
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._gone.is_set()

    def cancel(self) -> bool:
        """Leave the queue, or end after the token that is computed now.

        Returns:
            Whether there was anything left to do.
        """
        if self.future.done():
            return False
        self._gone.set()
        self.future.cancel()
        return True

    async def pieces(self) -> AsyncIterator[str]:
        """The answer's text as it comes."""
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def answer(self) -> Answer:
        """The whole answer.

        Raises:
            DuetError: the request was refused.
        """
        return await asyncio.wrap_future(self.future)


class Worker:
    """The one thread that computes, and the places in its queue.

    Args:
        answerer: what answers.
        limits: of the server.
        metrics: where it is counted.
    """

    def __init__(self, answerer: Answerer, limits: Limits, metrics: Metrics):
        self._answerer, self._limits, self._metrics = answerer, limits, metrics
        self._thread = ThreadPoolExecutor(1, "duet serve")
        self._closed = threading.Event()
        self._taken = self._running = 0
        metrics.running.set_function(lambda: self._running)
        metrics.waiting.set_function(lambda: self._taken - self._running)

    def take_place(self) -> Callable[[], None]:
        """Take a place in the queue.

        Returns:
            What gives it back.

        Raises:
            RequestError: all are taken.
        """
        if self._taken >= self._limits.queue:
            raise RequestError(f"{self._taken} requests run or wait already: try again later.", 503)
        self._taken += 1

        def give_back() -> None:
            self._taken -= 1

        return give_back

    def submit(self, request: ChatRequest, pictures: Sequence[Any], done: Callable[[], None]) -> Job:
        """Put a request into the queue.

        Args:
            done: called on the event loop when it has been answered, refused or given up.
        """
        job, since = Job(), time.perf_counter()
        job.future = self._thread.submit(self._run, job, request, pictures, since)
        loop = asyncio.get_running_loop()

        def over(_: Future[Answer]) -> None:
            job.put(None)
            with contextlib.suppress(RuntimeError):  # as in Job.put
                loop.call_soon_threadsafe(done)

        job.future.add_done_callback(over)
        return job

    def close(self) -> None:
        """End what runs after its token, and what waits at once."""
        self._closed.set()
        self._thread.shutdown(cancel_futures=True)

    def _run(self, job: Job, request: ChatRequest, pictures: Sequence[Any], since: float) -> Answer:
        if job.gone():
            raise Gone
        first = list[float]()

        def put(piece: str) -> None:
            if not first:
                first.append(time.perf_counter() - since)
            job.put(piece)

        self._running = 1
        try:
            answer = self._answerer.answer(request, pictures, put, lambda: job.gone() or self._closed.is_set())
        finally:
            self._running = 0
        self._metrics.count(answer, first[0] if first else None, time.perf_counter() - since)
        return answer
