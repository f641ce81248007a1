import asyncio

import httpx
import pytest

from parrot_backend.demo.transport import DelayingTransport

ROUND_TRIP_S = 0.2


class Pieces(httpx.AsyncByteStream):
    """Sends two pieces with a pause between; fails at the end if it is told to."""

    def __init__(self, pause_s=0.0, error=None):
        self.pause_s = pause_s
        self.error = error
        self.is_closed = False

    async def __aiter__(self):
        yield b"one "
        await asyncio.sleep(self.pause_s)
        if self.error is not None:
            raise self.error
        yield b"two"

    async def aclose(self):
        self.is_closed = True


def client(stream):
    def answer(_request):
        return httpx.Response(200, stream=stream)

    transport = DelayingTransport(ROUND_TRIP_S, httpx.MockTransport(answer))
    return transport, httpx.AsyncClient(transport=transport)


async def test_a_request_and_its_reply_take_one_round_trip():
    transport, http = client(Pieces())
    begin_s = asyncio.get_running_loop().time()
    reply = await http.get("http://server/")
    took_s = asyncio.get_running_loop().time() - begin_s
    assert reply.text == "one two"
    assert ROUND_TRIP_S <= took_s < 2 * ROUND_TRIP_S
    assert transport.round_trips == 1


async def test_pieces_of_a_stream_keep_their_distance_and_are_not_delayed_twice():
    _, http = client(Pieces(pause_s=0.1))
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    async with http.stream("GET", "http://server/") as reply:
        arrivals_s = [loop.time() - begin_s async for _ in reply.aiter_raw()]
    first_s, second_s = arrivals_s
    assert ROUND_TRIP_S <= first_s < 2 * ROUND_TRIP_S
    assert ROUND_TRIP_S + 0.1 <= second_s < 2 * ROUND_TRIP_S + 0.1


async def test_requests_side_by_side_wait_side_by_side():
    transport, http = client(Pieces())
    begin_s = asyncio.get_running_loop().time()
    await asyncio.gather(*(http.get("http://server/") for _ in range(8)))
    assert asyncio.get_running_loop().time() - begin_s < 3 * ROUND_TRIP_S
    assert transport.round_trips == 8


async def test_a_connection_that_breaks_off_breaks_off_for_the_reader():
    _, http = client(Pieces(error=httpx.ReadError("gone")))
    with pytest.raises(httpx.ReadError, match="gone"):
        await http.get("http://server/")


async def test_a_reader_who_leaves_closes_the_reply():
    stream = Pieces(pause_s=60)
    _, http = client(stream)
    async with http.stream("GET", "http://server/") as reply:
        assert await anext(reply.aiter_raw()) == b"one "
    assert stream.is_closed
