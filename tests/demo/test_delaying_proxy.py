from __future__ import annotations

import threading
import time

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


def test_each_request_takes_a_round_trip_and_is_counted(server: ScriptedServer) -> None:
    with delaying_proxy(server.url, ROUND_TRIP_S) as proxy, httpx.Client() as http:
        begin_s = time.monotonic()
        replies = [http.get(f"{proxy.url}/ready") for _ in range(3)]
        took_s = time.monotonic() - begin_s
    assert [reply.status_code for reply in replies] == [200] * 3
    assert proxy.round_trips == 3
    # Never less; how much more depends on the machine.
    assert took_s >= 3 * ROUND_TRIP_S


def test_what_a_body_holds_is_not_counted_and_arrives_whole(server: ScriptedServer) -> None:
    text = "GET / HTTP/1.1\r\n" * 20_000
    with delaying_proxy(server.url, 0) as proxy, httpx.Client() as http:
        reply = http.post(f"{proxy.url}/nowhere", json={"text": text})
    assert reply.status_code == 404
    assert proxy.round_trips == 1


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
