"""The traffic of a plan: what ends it, and that nothing of another session gets into it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from parrot_backend.protocol import FailureView, SubmitReply, VariableView
from parrot_integrations import ParrotClient
from parrot_integrations.couriers import ThreadCourier
from parrot_integrations.errors import ConnectionFailed, SessionReplaced
from parrot_integrations.outbox import Outbox
from parrot_integrations.planning.background import background
from parrot_integrations.planning.session import PlanSession
from parrot_integrations.shipment import Shipment
from parrot_integrations.stopping import StreamStop


class HeldCourier(ThreadCourier):
    """Sends nothing; the test plays the server."""

    def __init__(self) -> None:
        super().__init__()
        self.shipments: list[tuple[Outbox, Shipment]] = []
        self.closed: list[str] = []
        self.mishap: Exception | None = None

    def start(self, outbox: Outbox, shipment: Shipment) -> None:
        self.shipments.append((outbox, shipment))

    def receive(self, event: SubmitReply | VariableView) -> None:
        outbox, shipment = self.shipments[0]
        outbox.receive(shipment, event)

    def set_variable(self, variable_id: str, value: str) -> None:
        if self.mishap is not None:
            raise self.mishap

    def close_session(self, session_id: str) -> None:
        self.closed.append(session_id)
        if self.mishap is not None:
            raise self.mishap


class Stream:
    """The transport's stream below a response."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def get_extra_info(self, _name: str) -> socket.socket:
        return self._sock


def greeting(session: str) -> SubmitReply:
    return SubmitReply(session_id=session, variables={})


def ready(name: str, value: str, session: str = "s1") -> VariableView:
    return VariableView(id=f"{session}.{name}", name=name, state="ready", value=value)


@pytest.fixture
def courier() -> HeldCourier:
    return HeldCourier()


@pytest.fixture
def session(courier: HeldCourier) -> PlanSession:
    session = PlanSession(courier, "", {})
    wanted = {"first": None, "second": None, "map-list": None}
    session.submit((), {"late": None}, wanted, {"map-list": "map"})
    return session


def test_a_value_that_cannot_be_set_ends_the_plan_for_good(
    courier: HeldCourier, session: PlanSession
) -> None:
    courier.receive(greeting("s1"))
    courier.mishap = ConnectionFailed("connection_failed", "reset")
    session.set("late", "x")
    assert background().settle(5)
    assert session.is_lost
    courier.receive(ready("second", "of a value that the program has never seen"))
    assert session.slot("second").known.view is None
    assert session.slot("second").known.is_final()
    assert courier.closed == ["s1"]


def test_a_reader_ends_with_its_plan_even_if_the_server_cannot_be_told(
    courier: HeldCourier, session: PlanSession
) -> None:
    courier.receive(greeting("s1"))
    courier.mishap = ConnectionFailed("connection_failed", "reset")
    stop, (ours, theirs) = courier.shipments[0][1].stop, socket.socketpair()
    with ours, theirs:
        stop.watch(httpx.Response(200, extensions={"network_stream": Stream(ours)}))
        session.close()
        assert background().settle(5)
        assert ours.recv(1) == b""
    assert stop.is_set


def test_a_stream_that_was_stopped_is_not_opened_again(
    client: ParrotClient, answers: list[httpx.Response], log: list[str]
) -> None:
    answers += [events(("session", greeting("s1").model_dump_json()))] * 2
    request, stop = Shipment(None, {"first": None}, "", {}).request(), StreamStop()
    stream = client.submit_stream(request, stop=stop)
    next(stream)
    stop.set()
    assert list(stream) == []
    assert len(log) == 1


def events(*lines: tuple[str, str]) -> httpx.Response:
    text = "".join(f"event: {name}\ndata: {data}\n\n" for name, data in lines)
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)


@pytest.fixture
def answers() -> list[httpx.Response]:
    return []


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def client(answers: list[httpx.Response], log: list[str]) -> Iterator[ParrotClient]:
    def handle(request: httpx.Request) -> httpx.Response:
        log.append(f"{request.method} {request.url.path}")
        return answers.pop(0) if request.method == "POST" else httpx.Response(204)

    with ParrotClient("http://parrot.test", transport=httpx.MockTransport(handle)) as client:
        yield client


def test_values_of_a_second_session_do_not_get_into_the_first(
    client: ParrotClient, answers: list[httpx.Response], log: list[str]
) -> None:
    """The stream breaks, and the submit finds a server that knows nothing of it."""
    first = ("variable", ready("first", "one").model_dump_json())
    other = ("variable", ready("second", "of another one", "s2").model_dump_json())
    answers += [
        events(("session", greeting("s1").model_dump_json()), first),
        events(("session", greeting("s2").model_dump_json()), other, ("done", "{}")),
    ]
    session = PlanSession(ThreadCourier(client), "", {})
    session.submit((), {}, {"first": None, "second": None})
    known = session.slot("second").known
    while not known.is_final():
        known = session.slot("second").wait(known, 5)
    assert isinstance(known.error, SessionReplaced)
    assert session.slot("first").known.value() == "one"
    assert session.is_lost
    while "DELETE /v1/sessions/s2" not in log:
        assert len(log) < 5


def test_a_control_node_that_ended_makes_no_more_instances(
    courier: HeldCourier, session: PlanSession
) -> None:
    courier.receive(greeting("s1"))
    made, other = session.slot("map:0:text"), session.slot("mapped:0:text")
    courier.receive(ready("map:0:text", "made"))
    open_, error = (
        session.slot("map:1:text"),
        FailureView(code="too_many_items", message="m", origin="map-list", path=("map-list",)),
    )
    view = ready("map-list", "")
    courier.receive(view.model_copy(update={"state": "failed", "value": None, "error": error}))
    assert made.known.value() == "made"
    assert open_.known.error is not None
    assert session.slot("map:2:text").known.error is not None
    assert not other.known.is_final()
