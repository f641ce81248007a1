from __future__ import annotations

import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

from parrot_backend.demo.delaying_proxy import delaying_proxy
from tests.helpers.scripted_server import ScriptedServer, scripted_server

#: Long enough to be told from everything else that takes time.
ROUND_TRIP_S = 0.2


@pytest.fixture(scope="module")
def server():
    with scripted_server() as server:
        yield server


def test_each_request_takes_a_round_trip_and_those_that_bring_something_are_counted(
    server: ScriptedServer,
) -> None:
    with delaying_proxy(server.url, ROUND_TRIP_S) as proxy, httpx.Client() as http:
        begin_s = time.monotonic()
        replies = [http.post(f"{proxy.url}/nowhere", json={}) for _ in range(2)]
        replies += [http.get(f"{proxy.url}/ready")]
        took_s = time.monotonic() - begin_s
    assert [reply.status_code for reply in replies] == [404, 404, 200]
    assert proxy.num_requests == 2
    # Never less; how much more depends on the machine.
    assert took_s >= 3 * ROUND_TRIP_S


def test_what_a_body_holds_is_not_counted_and_arrives_whole(server: ScriptedServer) -> None:
    text = "POST / HTTP/1.1\r\n" * 20_000
    with delaying_proxy(server.url, 0) as proxy, httpx.Client() as http:
        reply = http.post(f"{proxy.url}/nowhere", json={"text": text})
    assert reply.status_code == 404
    assert proxy.num_requests == 1


def test_a_server_that_is_not_there_breaks_the_connection() -> None:
    with (
        delaying_proxy("http://127.0.0.1:9", 0) as proxy,
        httpx.Client() as http,
        pytest.raises(httpx.TransportError),
    ):
        http.get(f"{proxy.url}/ready")


def test_nothing_is_left_when_the_block_ends(server: ScriptedServer) -> None:
    before = threading.active_count()
    with httpx.Client() as http:
        with delaying_proxy(server.url, 0) as proxy:
            http.get(f"{proxy.url}/ready")
        # The connection that is kept alive is cut.
        with pytest.raises(httpx.TransportError):
            http.get(f"{proxy.url}/ready")
    assert threading.active_count() == before


async def test_it_can_be_used_where_an_event_loop_runs(server: ScriptedServer) -> None:
    with delaying_proxy(server.url, 0) as proxy:
        async with httpx.AsyncClient() as http:
            reply = await http.get(f"{proxy.url}/ready")
    assert reply.status_code == 200


def test_requests_are_counted_however_they_are_cut(server: ScriptedServer) -> None:
    request = b"POST /nowhere HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n"
    with delaying_proxy(server.url, 0) as proxy:
        address = urlsplit(proxy.url)
        assert address.port is not None
        with socket.create_connection(("127.0.0.1", address.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for begin in range(0, len(request) * 2, 5):
                sock.sendall((request * 2)[begin : begin + 5])
            received = b""
            while received.count(b"HTTP/1.1 404") < 2:
                received += sock.recv(65536)
    assert proxy.num_requests == 2
