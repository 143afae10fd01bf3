"""Pictures from other hosts: only from public addresses, and from the address that was looked at.

Hosts are made up, and so are their addresses; what is really asked is a server of the test's own, on this machine.
"""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import tiny
from saved import config, processor
from serving import data_url, scene, serve, user
from transformers import LlavaForConditionalGeneration

from duet_vlm import DuetConfig
from duet_vlm.serving.limits import Limits, RequestError
from duet_vlm.serving.remote import Remote, is_public

PUBLIC, HERE = "93.184.216.34", "127.0.0.1"
PICTURE = data_url(scene(1)).encode().partition(b",")[2]
CLOSED = [
    "127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.9", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.0",
    "100.64.0.1", "192.0.2.7", "198.18.0.1", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::9", "ff02::1", "2001:db8::1", "::ffff:10.0.0.1",
    "::ffff:93.184.216.34", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::", "here",
]  # fmt: skip


@pytest.mark.parametrize("address", CLOSED)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "172.32.0.1", "2606:2800:220:1:248:1893:25c8:1946"])
def test_what_is_public(address: str) -> None:
    assert is_public(address)


class Host(ThreadingHTTPServer):
    """Answers by path, and notes who was asked for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str]] = []
        self.hold = threading.Event()
        super().__init__((HERE, 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        self.server.asked.append((self.headers["Host"], self.path))
        kind, _, rest = self.path[1:].partition("?")[0].partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
        elif kind == "slow":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x")
            self.server.hold.wait(60)
        elif kind == "drip":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side has gone
                while not self.server.hold.wait(0.01):
                    self.wfile.write(b"x")
        else:
            self.send_response(200 if kind == "bytes" else 500)
            self.end_headers()
            self.wfile.write(b"x" * int(rest or 0))

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield host
    host.hold.set()
    host.shutdown()
    thread.join()
    host.server_close()


class Names:
    """Addresses of made-up hosts; each call may give others."""

    def __init__(self, **hosts: list[list[str]]):
        self.hosts, self.asked = hosts, list[str]()

    def __call__(self, name: str, port: int) -> list[str]:
        self.asked.append(name)
        found = self.hosts[name.partition(".")[0]]
        return found.pop(0) if len(found) > 1 else found[0]


def lenient(names: Names, **more: Any) -> Remote:
    """One that takes this machine for public, so that it can be asked at all."""
    return Remote(resolve=names, allowed=lambda address: address == HERE, **more)


def test_only_public_addresses_are_asked(host: Host) -> None:
    port = host.server_address[1]
    for addresses in ([HERE], [PUBLIC, HERE], ["10.0.0.1"], ["::1"], []):
        names = Names(pictures=[addresses])
        with pytest.raises(RequestError, match="is not at a public address, which alone is asked: send a data URL"):
            Remote(resolve=names).fetch(f"http://pictures.example:{port}/bytes/9", 100)
        assert names.asked == ["pictures.example"]
    with pytest.raises(RequestError, match="not at a public address"):  # the system's own names, too
        Remote().fetch(f"http://localhost:{port}/bytes/9", 100)
    with pytest.raises(RequestError, match="not at a public address"):
        Remote().fetch(f"http://[::1]:{port}/bytes/9", 100)
    assert host.asked == []


def test_the_address_that_was_looked_at_is_asked(host: Host) -> None:
    port = host.server_address[1]
    names = Names(pictures=[[HERE], ["10.0.0.1"]])  # it would be another one, were it looked up again
    assert lenient(names).fetch(f"http://pictures.example:{port}/bytes/9?a=b", 100) == b"x" * 9
    assert names.asked == ["pictures.example"]
    assert host.asked == [(f"pictures.example:{port}", "/bytes/9?a=b")]


def test_redirects_go_the_same_way(host: Host) -> None:
    port = host.server_address[1]
    names = Names(first=[[HERE]], second=[[HERE]], inner=[["192.168.0.1"]])
    there = f"http://second.example:{port}/bytes/9"
    assert lenient(names).fetch(f"http://first.example:{port}/to/{there}", 100) == b"x" * 9
    assert [name for name, _ in host.asked] == [f"first.example:{port}", f"second.example:{port}"]
    assert lenient(names).fetch(f"http://first.example:{port}/to//bytes/4", 100) == b"x" * 4
    refused = {
        f"http://inner.example:{port}/bytes/9": "not at a public address",
        "file:///etc/hosts": "is none of http or https",
        "data:image/png;base64,YWJj": "is none of http or https",
        "http://me:word@second.example/": "a user's name",
        "": "is behind more than 3 redirects",
    }
    for target, message in refused.items():
        with pytest.raises(RequestError, match=message):
            lenient(names).fetch(f"http://first.example:{port}/to/{target}", 100)


def test_no_more_is_read_than_is_allowed(host: Host) -> None:
    url = f"http://pictures.example:{host.server_address[1]}/bytes/"
    remote = lenient(Names(pictures=[[HERE]]))
    assert len(remote.fetch(f"{url}100", 100)) == 100
    with pytest.raises(RequestError, match="more than the 100 bytes") as caught:
        remote.fetch(f"{url}101", 100)
    assert caught.value.status == 413


def test_hosts_that_do_not_answer_well(host: Host) -> None:
    port = host.server_address[1]
    names = Names(pictures=[[HERE]])
    with pytest.raises(RequestError, match="answers with status 500: send a data URL"):
        lenient(names).fetch(f"http://pictures.example:{port}/broken", 100)
    for kind in ("slow", "drip"):  # nothing more, and a byte now and then without end
        with pytest.raises(RequestError, match=r"took more than 0\.2 seconds: send a data URL"):
            lenient(names, seconds=0.2).fetch(f"http://pictures.example:{port}/{kind}", 10**9)
    with pytest.raises(RequestError, match="cannot be had"):  # no certificate there
        lenient(names).fetch(f"https://pictures.example:{port}/bytes/9", 100)

    def unknown(name: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    with pytest.raises(RequestError, match=r"host 'nowhere.example' has no address \(Name or service not known\)"):
        Remote(resolve=unknown).fetch("http://nowhere.example/a.png", 100)
    for url, message in (
        ("ftp://pictures.example/a", "none of http or https"),
        ("http:///a", "has no host"),
        ("http://pictures.example:99999/a", "none of http or https"),
        ("http://pictures.example/ä", "signs that URLs write as %20"),
        ("http://pictures.example/a b", "signs that URLs write as %20"),
    ):
        with pytest.raises(RequestError, match=message):
            lenient(names).fetch(url, 100)


def test_the_server_fetches_where_it_is_told_to(host: Host) -> None:
    model = LlavaForConditionalGeneration(config()).eval()
    tiny.randomize(model)
    fetched = list[tuple[str, int]]()

    def fetch(url: str, most: int) -> bytes:
        fetched.append((url, most))
        return base64.b64decode(PICTURE)

    limits = Limits(urls=True)
    with serve(model, processor(), DuetConfig.preset("duet", model=model, keep=0.5), limits, fetch=fetch) as served:
        said = served.ask(user("https://pictures.example/a.png", "find the ring ."))
        assert said.choices == served.ask(user(scene(1), "find the ring .")).choices
        assert fetched == [("https://pictures.example/a.png", limits.image_bytes)]
    # the one that a server has by itself asks no address of this machine
    with serve(model, processor(), DuetConfig.preset("duet", model=model, keep=0.5), limits) as served:
        answer = served.post({"messages": [user(f"http://127.0.0.1:{host.server_address[1]}/bytes/9")]})
        assert answer.status_code == 400 and "not at a public address" in answer.json()["error"]["message"]
    assert host.asked == []
