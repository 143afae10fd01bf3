"""One request at a time, in their order, and not too many; who goes away is not answered; what runs is finished."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
import tiny
from saved import config, processor
from serving import Gate, Served, serve, until, user
from transformers import LlavaForConditionalGeneration

from duet_vlm import DuetConfig
from duet_vlm.serving.limits import Limits

QUEUE = 3
QUESTION = user("find the ring .")


@pytest.fixture
def model() -> Any:
    model = LlavaForConditionalGeneration(config()).eval()
    tiny.randomize(model)
    model.generation_config.eos_token_id = None
    return model


@pytest.fixture
def gate(model: Any) -> Iterator[Gate]:
    gate = Gate(model)
    yield gate
    gate.remove()


@pytest.fixture
def served(model: Any, gate: Gate) -> Iterator[Served]:
    limits = Limits(queue=QUEUE, new_tokens=1000, body_seconds=0.2)
    with serve(model, processor(), DuetConfig.preset("duet", model=model, keep=0.5), limits) as served:
        yield served
        gate.remove()


def ask(served: Served, tokens: int) -> httpx2.Response:
    return httpx2.post(
        f"{served.url}/chat/completions", timeout=60, trust_env=False,
        json={"model": "demo", "messages": [QUESTION], "max_tokens": tokens},
    )  # fmt: skip


def waiting(served: Served) -> tuple[float, float]:
    found = served.metrics()
    return found["duet_requests_running"], found["duet_requests_waiting"]


def test_a_full_queue_says_so_and_the_others_are_answered(served: Served, gate: Gate) -> None:
    with ThreadPoolExecutor(QUEUE) as clients:
        asked = [clients.submit(ask, served, 2 + n) for n in range(QUEUE)]
        until(lambda: waiting(served) == (1, QUEUE - 1) and gate.seen == 1)
        refused = ask(served, 2)
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
        assert "3 requests run or wait already" in refused.json()["error"]["message"]
        assert gate.seen == 1  # the others wait for their turn
        gate.remove()
        counts = [one.result().json()["usage"]["completion_tokens"] for one in asked]
    assert counts == [2, 3, 4]
    until(lambda: waiting(served) == (0, 0))
    assert ask(served, 2).status_code == 200  # places are given back


@contextmanager
def asking(served: Served) -> Iterator[None]:
    """A client that asks for a long answer and goes away at the end of the block."""
    content = json.dumps({"model": "demo", "messages": [QUESTION], "max_tokens": 900}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: "
    with socket.create_connection(("127.0.0.1", served.http.base_url.port or 0)) as line:
        line.sendall(f"{head}{len(content)}\r\n\r\n".encode() + content)
        yield


def gone(served: Served) -> bool:
    return served.metrics()["duet_requests_gone_total"] == 1


def test_a_client_that_goes_away_ends_its_answer(served: Served, gate: Gate) -> None:
    with asking(served):
        until(lambda: gate.seen == 1)
    until(lambda: gone(served))
    gate.let(900)
    assert ask(served, 2).status_code == 200  # its turn comes when that of the first is over
    assert gate.seen < 10
    assert served.metrics()['duet_requests_total{status="499"}'] == 1


def test_a_client_that_goes_away_ends_its_stream(served: Served, gate: Gate) -> None:
    body = {"model": "demo", "messages": [QUESTION], "max_tokens": 900, "stream": True}
    gate.let(3)
    with served.http.stream("POST", "/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        until(lambda: gate.seen == 4)
    until(lambda: gone(served))
    gate.let(900)
    assert ask(served, 2).status_code == 200
    assert gate.seen < 10


def test_a_client_that_goes_away_leaves_the_queue(served: Served, gate: Gate) -> None:
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(ask, served, 3)
        until(lambda: gate.seen == 1)
        with asking(served):
            until(lambda: waiting(served) == (1, 1))
        until(lambda: waiting(served) == (1, 0))
        gate.remove()
        assert first.result().status_code == 200
    assert served.metrics()["duet_answer_tokens_total"] == 3 and gone(served)


def test_a_request_that_never_comes_in_gives_its_place_back(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.http.base_url.port or 0)) as line:
        line.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert b"408" in line.recv(4096).splitlines()[0]
    until(lambda: waiting(served) == (0, 0))


def test_what_runs_and_waits_is_answered_before_the_server_ends(model: Any, gate: Gate) -> None:
    with ThreadPoolExecutor(3) as clients:
        with serve(model, processor(), DuetConfig.preset("duet", model=model, keep=0.5)) as served:
            asked = [clients.submit(ask, served, 3) for _ in range(2)]
            until(lambda: waiting(served) == (1, 1))
            port = served.http.base_url.port or 0

            def ending() -> bool:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                except ConnectionRefusedError:
                    return True
                return False

            clients.submit(lambda: (until(ending), gate.remove()))
        # the block has ended, and with it the server
        assert [one.result().json()["usage"]["completion_tokens"] for one in asked] == [3, 3]


def test_a_second_signal_gives_up_what_runs(served: Served, gate: Gate) -> None:
    with ThreadPoolExecutor(3) as clients:
        asked = [clients.submit(ask, served, 900) for _ in range(2)]
        until(lambda: waiting(served) == (1, 1) and gate.seen == 1)
        served.server.force_exit = served.server.should_exit = True  # what the second SIGINT does
        for one in asked:
            answer = one.result()
            assert answer.status_code == 503 and "the server was stopped" in answer.json()["error"]["message"]
    assert gate.seen == 1
