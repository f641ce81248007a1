import pytest

from parrot_backend.demo.one_submit import session_to_calls
from parrot_backend.demo.records import PhaseKind
from parrot_backend.protocol import NodeView, SessionView, Usage

USAGE = Usage(prompt_tokens=100, completion_tokens=8, cached_tokens=32)


def request(output, inputs=(), **changes):
    known = {
        "id": f"s.{output}",
        "kind": "request",
        "state": "finished",
        "inputs": inputs,
        "output": output,
        "created_s": 0.0,
        "ready_s": 0.1,
        "placed_s": 0.2,
        "first_token_s": 0.3,
        "finished_s": 0.5,
        "engine_s": 0.25,
        "usage": USAGE,
    }
    return NodeView(**{**known, **changes})


def join(output, inputs):
    return NodeView(
        id=f"s.{output}",
        kind="transform",
        state="finished",
        inputs=inputs,
        output=output,
        created_s=0.0,
    )


def session(*nodes):
    return SessionView(
        id="s", app="", metadata={}, state="open", age_s=1.0, variables=(), nodes=nodes
    )


def test_times_become_phases_on_the_clients_clock():
    (call,) = session_to_calls(session(request("x")), ("the call",), opened_s=1.0)
    assert call.name == "the call"
    assert [(p.kind, p.begin_s, p.end_s) for p in call.phases] == [
        (PhaseKind.QUEUE, 1.1, 1.2),
        (PhaseKind.PREFILL, 1.2, 1.3),
        (PhaseKind.DECODE, 1.3, 1.5),
    ]


def test_tokens_and_engine_time_are_taken_over():
    (call,) = session_to_calls(session(request("x")), ("x",), opened_s=0.0)
    assert (call.prompt_tokens, call.cached_tokens, call.completion_tokens) == (100, 32, 8)
    assert call.engine_s == 0.25


def test_dependencies_are_seen_through_transforms():
    nodes = (
        request("m1"),
        request("m2"),
        join("both", ("m1", "m2")),
        request("whole", ("both", "question")),
    )
    calls = session_to_calls(session(*nodes), ("part 1", "part 2", "whole"), opened_s=0.0)
    assert [call.needs for call in calls] == [(), (), ("part 1", "part 2")]


def test_a_call_without_times_is_an_error():
    with pytest.raises(ValueError, match="all times of call 'x'"):
        session_to_calls(session(request("x", engine_s=None)), ("x",), opened_s=0.0)


def test_another_number_of_calls_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        session_to_calls(session(request("x")), ("x", "y"), opened_s=0.0)
