"""How `duet batch` shares a cluster out, and what it says where there is none; without Ray."""

from __future__ import annotations

import os
import signal
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from duet_vlm import DuetError
from duet_vlm.serving.batch.cluster import EVERYWHERE, LOCAL, Share, cluster, share


def of(cpus: int, gpus: int, machines: int = 1) -> Any:
    nodes = [{"Alive": True}] * machines + [{"Alive": False}]
    return SimpleNamespace(
        cluster_resources=lambda: {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {}), nodes=lambda: nodes
    )


@pytest.mark.parametrize("cpus", [1, 2, 16])
@pytest.mark.parametrize("workers", [1, 2, 3, 64])
def test_workers_leave_at_least_half_of_the_cpus_to_the_rest_of_a_run(cpus: int, workers: int) -> None:
    found = share(of(cpus, 0), workers, None, None)
    assert found.workers == workers and found.gpus == 0 and 0 < found.cpus <= 0.5
    assert found.cpus * workers <= cpus / 2 and found.threads == max(1, cpus // workers)


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        (of(64, 0, machines=4), (None, None, None), Share(4, 0.5, 0, 16)),
        (of(64, 8, machines=2), (None, None, None), Share(8, 0, 1, 8)),
        (of(64, 8, machines=2), (None, "cuda", 2), Share(8, 0, 1, 2)),
        (of(64, 8, machines=2), (4, None, None), Share(4, 0, 1, 16)),
        (of(8, 2), (6, None, None), Share(6, 0, 0.3333, 1)),
        (of(8, 2), (3, None, None), Share(3, 0, 0.5, 2)),
        (of(8, 2), (None, "cpu", None), Share(1, 0.5, 0, 8)),
    ],
)
def test_shares_of_clusters(there: Any, asked: tuple[Any, ...], expected: Share) -> None:
    assert share(there, *asked) == expected


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cuda", "device 'cuda' is not available: Ray knows of no GPU here"),
        ("cuda:1", "device 'cuda:1' names one of several, and Ray gives each worker its own: give cuda."),
    ],
)
def test_devices_that_ray_cannot_give(device: str, told: str) -> None:
    with pytest.raises(DuetError, match=told):
        share(of(8, 0), None, device, None)


def test_without_ray_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    told = r"^duet batch needs Ray: install it with pip install 'duet-vlm\[batch\]'.$"
    with pytest.raises(DuetError, match=told), cluster(None):
        raise AssertionError("there is no Ray")


def stub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A `ray` that only says how it was started, and in what environment."""
    calls: list[Any] = []
    names = (*EVERYWHERE, *LOCAL, "RAY_ADDRESS")
    ray = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **options: calls.append((options, {name: os.environ.get(name) for name in names})),
        shutdown=lambda: calls.append("shutdown"),
        data=None,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", SimpleNamespace())
    for name in names:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_ray_of_our_own_is_private_quiet_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stub(monkeypatch)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), cluster(None):
        os.kill(os.getpid(), signal.SIGTERM)
    (options, environment), ended = calls
    assert options["address"] == "local" and not options["include_dashboard"] and not options["log_to_driver"]
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0" and environment[next(iter(LOCAL))] == "0"
    assert ended == "shutdown" and signal.getsignal(signal.SIGTERM) is before
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    calls.clear()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with cluster(None):
        print("what Ray prints")
    assert calls[0][1]["RAY_USAGE_STATS_ENABLED"] == os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


def test_ray_cannot_speak_and_we_can(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    stub(monkeypatch)
    with cluster(None):
        print("a worker died")
        os.write(2, b"core_worker.cc: an error\n")
        print("duet: a sentence", file=sys.stderr, flush=True)
    print("an answer", flush=True)
    os.write(2, b"after it\n")
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("an answer\n", "duet: a sentence\nafter it\n")


def test_a_cluster_that_is_not_there_is_told_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stub(monkeypatch)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # nobody listens
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "127.0.0.1:99999"):
            told = f"^Ray cannot be reached at '{address}' .*: give --address HOST:PORT of a running cluster"
            with pytest.raises(DuetError, match=told), cluster(address):
                raise AssertionError("there is no cluster")
        assert not calls
        free.listen()
        with cluster(f"127.0.0.1:{port}"):
            ((options, environment),) = calls
    assert options == {"address": f"127.0.0.1:{port}", "log_to_driver": False}
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0" and environment[next(iter(LOCAL))] is None
