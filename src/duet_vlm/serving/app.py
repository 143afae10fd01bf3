"""The server's pages: /v1/chat/completions, /v1/models, /health and /metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..errors import DuetError
from .body import pass_over, read_body
from .completions import Completion
from .limits import Limits, RequestError, error_body, status_of
from .metrics import Metrics
from .pictures import Fetch, read_picture
from .requests import ChatRequest, read_request
from .worker import Job, Worker

GONE = 499  # what servers note where a client went away; nobody reads it
TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"  # of Prometheus


class Pages:
    """Answers HTTP requests about one served model.

    Args:
        model: the name under which it is served.
        worker: what computes.
        metrics: where it is counted.
        limits: of requests.
        fetch: what gets pictures from other hosts.
    """

    def __init__(self, model: str, worker: Worker, metrics: Metrics, limits: Limits, fetch: Fetch):
        self.model, self.worker, self.metrics, self.limits, self.fetch = model, worker, metrics, limits, fetch
        self.since = int(time.time())

    def app(self) -> Starlette:
        """The application, for any server of ASGI."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.one_model),
                Route("/health", self.health),
                Route("/metrics", self.figures),
            ],
            exception_handlers={HTTPException: _no_page, RequestError: _refused, Exception: _refused},
        )

    async def chat(self, request: Request) -> Response:
        """A chat completion, whole or as a stream of events."""
        status = 500
        try:
            answer = await self._chat(request)
            status = answer.status_code
            return answer
        except DuetError as error:
            status = status_of(error)
            return await _refused(request, error)
        except ClientDisconnect:
            status = GONE
            self.metrics.gone.inc()
            return Response(status_code=GONE)
        except asyncio.CancelledError:  # a second signal gives up what runs
            status = 503
            return await _refused(request, RequestError("the server was stopped: ask again when it runs.", status))
        finally:
            self.metrics.requests.labels(status).inc()

    async def models(self, _: Request) -> Response:
        """The one model that is served."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def one_model(self, request: Request) -> Response:
        """The same by its name."""
        name = request.path_params["name"]
        if name != self.model:
            raise RequestError(
                f"model {name!r} is not served here: give {self.model!r}.", 404, "model", "model_not_found"
            )
        return JSONResponse(self._model())

    async def health(self, _: Request) -> Response:
        """Whether requests are taken."""
        return JSONResponse({"status": "ok"})

    async def figures(self, _: Request) -> Response:
        """What was counted."""
        return Response(self.metrics.text(), media_type=TEXT_FORMAT)

    def _model(self) -> dict[str, Any]:
        return {"id": self.model, "object": "model", "created": self.since, "owned_by": "duet-vlm"}

    async def _chat(self, request: Request) -> Response:
        try:
            give_back = self.worker.take_place()
        except RequestError:
            await pass_over(request, self.limits)
            raise
        try:
            body = await read_body(request, self.limits)
            asked = await asyncio.to_thread(read_request, body, self.model, self.limits)
            pictures = await asyncio.to_thread(self._pictures, asked)
        except BaseException:
            give_back()
            raise
        job = self.worker.submit(asked, pictures, give_back)
        completion = Completion(self.model, asked)
        if not asked.stream:
            answer = await _or_gone(request, job, asyncio.ensure_future(job.answer()))
            return JSONResponse(completion.whole(answer))
        # what is refused when its turn comes is refused with a status of its own, before the stream begins
        pieces = aiter(job.pieces())
        first = await _or_gone(request, job, asyncio.ensure_future(anext(pieces, None)))
        if first is None:
            await job.answer()
        events = self._events(job, completion, first, pieces)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    def _pictures(self, asked: ChatRequest) -> list[Any]:
        return [read_picture(url, self.limits, self.fetch) for url in asked.pictures]

    async def _events(
        self, job: Job, completion: Completion, first: str | None, pieces: AsyncIterator[str]
    ) -> AsyncIterator[str]:
        try:
            yield completion.begin()
            if first is not None:
                yield completion.piece(first)
            async for piece in pieces:
                yield completion.piece(piece)
            for event in completion.end(await job.answer()):
                yield event
        except Exception as error:
            yield completion.event(error_body(error))
            raise
        finally:
            if job.cancel():  # the client has gone away
                self.metrics.gone.inc()


async def _or_gone(request: Request, job: Job, wanted: asyncio.Future[Any]) -> Any:
    """What is awaited, or the job's end where the client goes away before.

    Raises:
        ClientDisconnect: it did.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({wanted, watch}, return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            return wanted.result()
        raise ClientDisconnect
    finally:
        watch.cancel()
        if not wanted.done():
            job.cancel()
            wanted.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _refused(_: Request, error: Exception) -> Response:
    headers = {"Retry-After": "1"} if status_of(error) == 503 else None
    return JSONResponse(error_body(error), status_of(error), headers)


async def _no_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path}"
    told = RequestError(f"there is no {what} here: POST /v1/chat/completions or GET /v1/models.", error.status_code)
    return JSONResponse(error_body(told), error.status_code, error.headers)
