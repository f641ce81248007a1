"""A session's timeline as Chrome trace events, which Perfetto opens. Pure.

Times are microseconds since the session was opened. Process 1 is the session itself: how long each
call was queued, its transforms, and its maps, branches and loops from their first instance to their
value. Each engine is a process of its own; calls that ran there at the same time lie in different
lanes (threads), because slices of one thread must nest.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from parrot_backend.core.control import ControlNode
from parrot_backend.core.ids import name_of
from parrot_backend.core.nodes import Node, NodeState, Request
from parrot_backend.core.session import Session

#: One event of the trace: foreign JSON, see the "Trace Event Format" of Chrome.
TraceEvent = dict[str, Any]

_SESSION_PID = 1


@dataclass(frozen=True, slots=True)
class _Slice:
    """Something that took from one time to another, on the core's clock; parts lie inside."""

    name: str
    category: str
    begin_s: float
    end_s: float
    args: dict[str, Any] = field(default_factory=dict)
    parts: tuple[tuple[str, float, float], ...] = ()


def session_to_trace(session: Session, now_s: float) -> dict[str, Any]:
    """Return the trace of a session; what has not ended lasts until ``now_s``."""
    nodes = list(session.graph.nodes.values())
    requests = [node for node in nodes if isinstance(node, Request)]
    own = [_queued(r, now_s) for r in requests if r.ready_s is not None]
    own += [_computed(node, now_s) for node in nodes if _is_computed(node)]
    events = list(_process(_SESSION_PID, f"session {session.id}", own, session.created_s))
    engines = dict.fromkeys(r.engine for r in requests if r.engine is not None)
    for pid, engine in enumerate(engines, start=_SESSION_PID + 1):
        ran = [_ran(r, now_s) for r in requests if r.engine == engine]
        events += _process(pid, f"engine {engine}", ran, session.created_s)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"session": session.id, "app": session.app},
    }


def assign_lanes(spans: Iterable[tuple[float, float]]) -> list[int]:
    """Return a lane for each span so that spans of one lane do not overlap; as few as possible.

    Args:
        spans: Begin and end of each, in any order.
    """
    listed = list(spans)
    lanes = [0] * len(listed)
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    num_lanes = 0
    for position in sorted(range(len(listed)), key=lambda i: listed[i]):
        begin, end = listed[position]
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, num_lanes = num_lanes, num_lanes + 1
        lanes[position] = lane
        heapq.heappush(busy, (end, lane))
    return lanes


def _queued(request: Request, now_s: float) -> _Slice:
    assert request.ready_s is not None
    # After a retry, placed_s is that of the attempt before.
    is_queued = request.state is NodeState.READY
    end_s = now_s if is_queued else _first(request.placed_s, request.finished_s, now_s)
    args = {"objective": request.objective.objective_class.name.lower(), "reason": request.reason}
    begin_s = min(request.ready_s, end_s)
    return _Slice(f"queued {name_of(request.id)}", "queue", begin_s, end_s, args)


def _is_computed(node: Node) -> bool:
    if isinstance(node, ControlNode):
        return node.ready_s is not None
    return not isinstance(node, Request) and node.finished_s is not None


def _computed(node: Node, now_s: float) -> _Slice:
    end_s = _first(node.finished_s, now_s)
    begin_s = _first(node.ready_s, end_s)
    if not isinstance(node, ControlNode):
        return _Slice(name_of(node.id), "transform", begin_s, end_s)
    args = {"state": node.state.value, "nodes": node.num_placed, "output": name_of(node.output)}
    return _Slice(name_of(node.id), node.kind, begin_s, end_s, args)


def _ran(request: Request, now_s: float) -> _Slice:
    assert request.placed_s is not None
    end_s = _first(request.finished_s, now_s)
    first_s = request.first_token_s
    parts: tuple[tuple[str, float, float], ...] = ()
    if first_s is not None:
        parts = (("prefill", request.placed_s, first_s), ("decode", first_s, end_s))
    usage = request.usage
    args: dict[str, Any] = {
        "state": request.state.value,
        "output": name_of(request.output),
        "attempt": request.attempts,
        "group": request.objective.group,
        "stage": request.stage,
    }
    if usage is not None:
        args["prompt_tokens"] = usage.prompt_tokens
        args["cached_tokens"] = usage.cached_tokens
        args["completion_tokens"] = usage.completion_tokens
    return _Slice(name_of(request.id), "call", request.placed_s, end_s, args, parts)


def _process(pid: int, name: str, slices: list[_Slice], opened_s: float) -> Iterator[TraceEvent]:
    yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name}}
    lanes = assign_lanes((s.begin_s, s.end_s) for s in slices)
    for lane in sorted(set(lanes)):
        label = {"name": f"lane {lane}"}
        yield {"ph": "M", "pid": pid, "tid": lane, "name": "thread_name", "args": label}
    for item, lane in zip(slices, lanes, strict=True):
        place = {"ph": "X", "pid": pid, "tid": lane, "cat": item.category}
        times = _times(item.begin_s, item.end_s, opened_s)
        yield {**place, "name": item.name, "args": item.args, **times}
        for part, begin_s, end_s in item.parts:
            yield {**place, "name": part, **_times(begin_s, end_s, opened_s)}


def _times(begin_s: float, end_s: float, opened_s: float) -> dict[str, int]:
    # Both ends are rounded in the same way, so that parts stay inside and lanes do not overlap.
    begin_us, end_us = round((begin_s - opened_s) * 1e6), round((end_s - opened_s) * 1e6)
    return {"ts": begin_us, "dur": max(0, end_us - begin_us)}


def _first(*candidates: float | None) -> float:
    return next(value for value in candidates if value is not None)
