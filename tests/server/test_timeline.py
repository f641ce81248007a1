"""The trace of a session: what Perfetto needs, and lanes without overlaps."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.ids import SessionId
from parrot_backend.metrics.timeline import assign_lanes, session_to_trace
from tests.server.conftest import RunningServer, StartServer, until
from tests.server.programs import call, wanted
from tests.server.toy_engine import ToyPlan

Event = dict[str, Any]


async def fan_out(server: RunningServer, width: int, **fields: Any) -> SessionId:
    nodes: list[Event] = [call(f"map{n}", f"{n}{{{{output:m{n}}}}}") for n in range(width)]
    inputs = "".join(f"{{{{input:m{n}}}}}" for n in range(width))
    joined = {"kind": "transform", "name": "join", "content": inputs, "output": "all"}
    reply = await server.submit(nodes=[*nodes, joined], outputs=wanted("all"), **fields)
    return SessionId(reply.json()["session_id"])


def trace_of(coordinator: Coordinator, session: SessionId, now_s: float) -> list[Event]:
    events: list[Event] = session_to_trace(coordinator.session(session), now_s)["traceEvents"]
    return events


def slices(events: list[Event], category: str) -> list[Event]:
    parts = ("prefill", "decode")
    return [e for e in events if e["ph"] == "X" and e["cat"] == category and e["name"] not in parts]


async def test_every_event_has_what_the_format_asks_for(start: StartServer):
    server = await start()
    session = await fan_out(server, 3)

    events = trace_of(server.service.coordinator, session, server.service.clock.now_s())

    for event in events:
        assert event["ph"] in ("X", "M")
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert isinstance(event["ts"], int)
            assert event["ts"] >= 0
            assert event["dur"] >= 0


async def test_session_and_engines_are_processes(start: StartServer):
    server = await start()
    session = await fan_out(server, 3)

    events = trace_of(server.service.coordinator, session, server.service.clock.now_s())

    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {1: f"session {session}", 2: "engine toy-0"}
    assert [e["name"] for e in slices(events, "transform")] == ["join"]
    assert len(slices(events, "queue")) == 3
    assert {e["args"]["completion_tokens"] for e in slices(events, "call")} == {3}


async def test_calls_at_the_same_time_lie_in_different_lanes(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    session = await fan_out(server, 3, wait=False)
    await until(lambda: len(plan.engine.running) == 3)

    now_s = server.service.clock.now_s()
    events = trace_of(server.service.coordinator, session, now_s)

    calls = slices(events, "call")
    opened_s = server.service.coordinator.session(session).created_s
    assert {e["tid"] for e in calls} == {0, 1, 2}
    assert {e["ts"] + e["dur"] for e in calls} == {round((now_s - opened_s) * 1e6)}


async def test_parts_lie_inside_their_call(start: StartServer):
    server = await start()
    session = await fan_out(server, 2)

    events = trace_of(server.service.coordinator, session, server.service.clock.now_s())

    by_lane: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X" and event["cat"] == "call":
            by_lane[event["tid"]].append(event)
    for whole, prefill, decode in by_lane.values():
        assert (prefill["name"], decode["name"]) == ("prefill", "decode")
        assert prefill["ts"] == whole["ts"]
        assert prefill["ts"] + prefill["dur"] == decode["ts"]
        assert decode["ts"] + decode["dur"] == whole["ts"] + whole["dur"]


async def test_a_call_that_is_queued_again_waits_until_now(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan, engine_restart_delay_s=60)
    session = await fan_out(server, 1, wait=False)
    await until(lambda: bool(plan.engine.running))
    plan.engine.die()
    await until(lambda: server.service.coordinator.num_waiting == 1)

    now_s = server.service.clock.now_s() + 7
    (queued,) = slices(trace_of(server.service.coordinator, session, now_s), "queue")

    assert 7e6 <= queued["dur"] < 8e6


SPANS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda s: (float(s[0]), float(sum(s))))
)


@given(SPANS)
def test_spans_of_one_lane_never_overlap(spans: list[tuple[float, float]]):
    by_lane: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for span, lane in zip(spans, assign_lanes(spans), strict=True):
        by_lane[lane].append(span)

    for together in by_lane.values():
        assert all(a[1] <= b[0] for a, b in pairwise(sorted(together)))


@given(SPANS.filter(bool))
def test_there_are_no_more_lanes_than_spans_at_one_time(spans: list[tuple[float, float]]):
    proper = [(begin, end + 1) for begin, end in spans]
    most = max(sum(b <= at < e for b, e in proper) for at, _ in proper)

    assert max(assign_lanes(proper)) + 1 == most
