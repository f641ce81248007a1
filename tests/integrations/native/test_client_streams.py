"""Streams of the HTTP clients: events, resumption, ends."""

from __future__ import annotations

from collections.abc import Iterable

import httpx
import pytest

import parrot_integrations as P
from parrot_backend.protocol import (
    CallNode,
    OutputSegment,
    StreamReset,
    SubmitReply,
    SubmitRequest,
    TextSegment,
    VariableView,
    WantedOutput,
)
from parrot_integrations._replies import StreamEvent
from tests.helpers.fake_parrot import FakeParrot

URL = "http://parrot.test"
REQUEST = SubmitRequest(
    nodes=(CallNode(name="f", prompt=(TextSegment(text="Say: "), OutputSegment(variable="y"))),),
    outputs=(WantedOutput(variable="y"),),
)


def answering(*replies: httpx.Response) -> P.ParrotClient:
    """Return a client whose requests get these replies, in order."""
    queue = list(replies)
    return P.ParrotClient(URL, transport=httpx.MockTransport(lambda request: queue.pop(0)))


def stream_reply(*events: tuple[str, str]) -> httpx.Response:
    body = "".join(f"event: {name}\ndata: {data}\n\n" for name, data in events)
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=body)


def kinds(events: Iterable[StreamEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_a_stream_tells_the_session_the_text_and_the_value(client: P.ParrotClient) -> None:
    assert kinds(client.submit_stream(REQUEST)) == [
        "SubmitReply",
        "StreamToken",
        "StreamToken",
        "VariableView",
    ]


def test_one_variable_can_be_streamed(client: P.ParrotClient) -> None:
    client.submit(REQUEST)
    assert kinds(client.stream_variable("s1.y"))[-1] == "VariableView"


def test_a_broken_stream_goes_on(fake: FakeParrot, client: P.ParrotClient) -> None:
    fake.breaks = [1]
    *_, last = client.submit_stream(REQUEST)
    assert isinstance(last, VariableView)
    assert last.value == "<Say: >"


def test_text_that_was_cut_off_is_announced_as_void(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.breaks = [1]
    events = list(client.submit_stream(REQUEST))
    assert events[2] == StreamReset(variable="y")


def test_a_stream_is_resumed_with_the_same_key(fake: FakeParrot, client: P.ParrotClient) -> None:
    fake.breaks = [1, 0]
    list(client.submit_stream(REQUEST))
    assert (len(fake.keys), len(set(fake.keys))) == (3, 1)


def test_a_stream_that_breaks_again_and_again_is_given_up(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.breaks = [0] * 9
    with pytest.raises(P.ConnectionFailed):
        list(client.submit_stream(REQUEST))


def test_a_stream_that_stops_before_its_end_is_opened_again() -> None:
    reply = SubmitReply(session_id="s", variables={}).model_dump_json()
    client = answering(
        stream_reply(("session", reply)), stream_reply(("session", reply), ("done", "{}"))
    )
    assert kinds(client.submit_stream(REQUEST)) == ["SubmitReply", "SubmitReply"]


def test_a_stream_that_the_server_ends_for_its_length_is_opened_again() -> None:
    client = answering(*[stream_reply(("timeout", "{}"))] * 9, stream_reply(("done", "{}")))
    assert list(client.stream_variable("s.y")) == []


def test_a_stream_ends_with_an_error_at_the_callers_own_timeout() -> None:
    client = answering(stream_reply(("timeout", "{}")))
    with pytest.raises(P.WaitTimeout):
        list(client.submit_stream(REQUEST.model_copy(update={"timeout_s": 0.1})))


@pytest.mark.parametrize("event", [("surprise", "{}"), ("token", "{}")])
def test_an_event_outside_the_protocol_is_an_error(event: tuple[str, str]) -> None:
    with pytest.raises(P.ServerFailed, match="bad_reply"):
        list(answering(stream_reply(event)).stream_variable("s.y"))


def test_leaving_a_stream_early_closes_the_connection(
    fake: FakeParrot, client: P.ParrotClient
) -> None:
    fake.held = {"y"}
    events = client.submit_stream(REQUEST)
    next(events)
    events.close()
    assert client.get_variable("s1.y", wait=False).state == "empty"


async def test_an_awaited_stream_goes_on_after_a_break(
    fake: FakeParrot, async_client: P.AsyncParrotClient
) -> None:
    fake.breaks = [1]
    events = [event async for event in async_client.submit_stream(REQUEST)]
    assert kinds(events) == [
        "SubmitReply",
        "StreamToken",
        "StreamReset",
        "SubmitReply",
        "StreamToken",
        "StreamToken",
        "VariableView",
    ]
