"""Every error code that a request can bring about, with its status."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from tests.server.conftest import StartServer
from tests.server.programs import Body, call, external, one_call, wanted
from tests.server.toy_engine import ToyPlan

SEGMENT_OUTPUT = {"type": "output", "variable": "x"}


def sampling(**fields: Any) -> Body:
    return one_call(nodes=[call("greet", "hi{{output:out}}", sampling=fields)])


def transform(**fields: Any) -> Body:
    node = {"kind": "transform", "name": "t", "content": "x", "output": "y", **fields}
    return {"nodes": [node]}


def chat(*messages: tuple[str, Any]) -> Body:
    listed = [{"role": role, "content": content} for role, content in messages]
    return {"nodes": [{"kind": "call", "name": "c", "messages": listed}]}


BAD_SUBMITS: dict[str, tuple[Body, int, str]] = {
    "cycle": (
        {
            "nodes": [
                call("a", "{{input:y}}{{output:x}}"),
                call("b", "{{input:x}}{{output:y}}"),
            ]
        },
        422,
        "cycle_in_graph",
    ),
    "unknown input": ({"nodes": [call("a", "{{input:no}}{{output:x}}")]}, 422, "unknown_variable"),
    "unknown wanted output": (one_call(outputs=wanted("no")), 422, "unknown_variable"),
    "unknown placeholder": (
        {"nodes": [call("a", "{{inptu:x}}{{output:y}}")]},
        422,
        "unknown_placeholder",
    ),
    "name that is none": ({"nodes": [call("a", "{{output:a b}}")]}, 422, "template_syntax"),
    "raw prompt without output": ({"nodes": [call("a", "hi")]}, 422, "template_without_output"),
    "chat without output": (
        chat(("user", "hi"), ("assistant", "yes")),
        422,
        "template_without_output",
    ),
    "output in a user's message": (
        chat(("user", "hi {{output:x}}"), ("assistant", "{{output:y}}")),
        422,
        "misplaced_output",
    ),
    "output in an assistant's message that is not the last": (
        chat(("assistant", "{{output:x}}"), ("assistant", "{{output:y}}")),
        422,
        "misplaced_output",
    ),
    "output in the last, a user's, message": (
        chat(("user", [SEGMENT_OUTPUT])),
        422,
        "misplaced_output",
    ),
    "output in a transform": (transform(content="{{output:x}}"), 422, "misplaced_output"),
    "output made twice": (
        {"nodes": [call("a", "x{{output:x}}{{output:x}}")]},
        422,
        "duplicate_variable",
    ),
    "output wanted twice": (one_call(outputs=wanted("out", "out")), 422, "duplicate_output"),
    "two calls of one name": (
        {"nodes": [call("a", "x{{output:x}}"), call("a", "x{{output:y}}")]},
        422,
        "duplicate_call",
    ),
    "bad pattern": (
        transform(transforms=[{"op": "regex_group", "pattern": "(a"}]),
        422,
        "invalid_transform",
    ),
    "unknown transform": (transform(transforms=[{"op": "eval"}]), 422, "invalid_request"),
    "unknown field": ({"nodez": []}, 422, "invalid_request"),
    "prompt and messages": (
        {"nodes": [{"kind": "call", "name": "a"}]},
        422,
        "invalid_request",
    ),
    "temperature too high": (sampling(temperature=2.5), 422, "invalid_sampling"),
    "no tokens": (sampling(max_tokens=0), 422, "invalid_sampling"),
    "top_p as text": (sampling(top_p="high"), 422, "invalid_sampling"),
    "more than all tokens": (sampling(min_tokens=9, max_tokens=8), 422, "invalid_sampling"),
    "unknown model": (
        one_call(nodes=[call("a", "hi{{output:out}}", model="gpt-99")]),
        422,
        "unknown_model",
    ),
    "unset variable at close": (
        {"variables": [external("x")], "close": True},
        422,
        "variable_not_set",
    ),
    "unknown session": ({"session_id": "nobody"}, 404, "unknown_session"),
}


@pytest.mark.parametrize("case", BAD_SUBMITS)
async def test_a_bad_submit_is_refused_with_its_code(
    start: StartServer, case: str, caplog: pytest.LogCaptureFixture
):
    body, status, code = BAD_SUBMITS[case]
    server = await start()

    reply = await server.submit(**body)

    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert len(server.service.coordinator.sessions) == 0
    assert server.service.runtime.num_waiters == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


BAD_BODIES = {
    "not JSON": b"{",
    "not UTF-8": b'{"app": "\xff"}',
    "lone surrogate": b'{"app": "\\ud800"}',
    "not a number": b'{"timeout_s": NaN}',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_what_is_not_json_is_malformed(start: StartServer, case: str):
    server = await start()
    headers = {"Content-Type": "application/json"}

    reply = await server.client.post("/v1/submit", content=BAD_BODIES[case], headers=headers)

    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "malformed_json")


async def test_a_bad_field_is_named(start: StartServer):
    server = await start()

    error = (await server.submit(**sampling(temperature=9))).json()["error"]

    assert error["context"]["field"] == "nodes.0.call.sampling.temperature"
    assert "less than or equal to 2" in error["message"]


async def test_a_body_of_another_content_type_is_refused_with_advice(start: StartServer):
    server = await start()

    reply = await server.client.post("/v1/submit", data={"nodes": "x"})

    assert reply.status_code == 422
    assert "Content-Type: application/json" in reply.json()["error"]["message"]


REQUESTS: dict[str, tuple[str, str, int, str]] = {
    "unknown path": ("GET", "/v1/nothing", 404, "not_found"),
    "wrong method": ("PATCH", "/v1/submit", 405, "method_not_allowed"),
    "unknown variable": ("GET", "/v1/variables/s.x", 404, "unknown_session"),
    "variable id without session": ("GET", "/v1/variables/x", 404, "unknown_session"),
    "unknown session": ("GET", "/v1/sessions/s", 404, "unknown_session"),
    "delete of an unknown session": ("DELETE", "/v1/sessions/s", 404, "unknown_session"),
    "cancel in an unknown session": ("POST", "/v1/sessions/s/cancel", 404, "unknown_session"),
    "timeline of an unknown session": ("GET", "/v1/sessions/s/timeline", 404, "unknown_session"),
}


@pytest.mark.parametrize("case", REQUESTS)
async def test_a_bad_request_is_refused_with_its_code(start: StartServer, case: str):
    method, path, status, code = REQUESTS[case]
    server = await start()

    reply = await server.client.request(method, path)

    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("query", ["timeout_s=-1", "wat=1"])
@pytest.mark.parametrize(("is_there", "status"), [(True, 422), (False, 404)])
async def test_a_bad_option_of_a_variable_is_told_where_there_is_one(
    start: StartServer, query: str, is_there: bool, status: int
):
    server = await start()
    session = (await server.submit(**one_call())).json()["session_id"] if is_there else "s"

    reply = await server.client.get(f"/v1/variables/{session}.out?{query}")

    code = {422: "invalid_request", 404: "unknown_session"}[status]
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


async def test_a_known_session_may_lack_the_variable(start: StartServer):
    server = await start()
    session = (await server.submit(**one_call())).json()["session_id"]

    reply = await server.client.get(f"/v1/variables/{session}.no")

    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_variable")


async def test_a_variable_is_set_once(start: StartServer):
    server = await start()
    session = (await server.submit(variables=[external("x")])).json()["session_id"]

    replies = [await put(server.client, session, "x") for _ in range(2)]

    assert [reply.status_code for reply in replies] == [200, 409]
    assert replies[1].json()["error"]["code"] == "variable_already_set"


async def test_a_variable_that_a_call_makes_cannot_be_set(start: StartServer):
    server = await start()
    session = (await server.submit(**one_call())).json()["session_id"]

    reply = await put(server.client, session, "out")

    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "variable_has_producer")


async def test_a_closed_session_takes_no_more_calls(start: StartServer):
    server = await start()
    session = (await server.submit(**one_call(close=True))).json()["session_id"]

    reply = await server.submit(session_id=session, nodes=[call("b", "x{{output:y}}")])

    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "session_closed")


async def test_a_key_cannot_be_used_for_another_body(start: StartServer):
    server = await start()
    await server.submit(**one_call(idempotency_key="k"))

    reply = await server.submit(**one_call("other", idempotency_key="k"))

    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_a_graph_over_the_limit_is_refused(start: StartServer):
    server = await start(max_graph_nodes=2)
    nodes = [call(f"c{n}", f"x{{{{output:v{n}}}}}") for n in range(3)]

    reply = await server.submit(nodes=nodes)

    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "graph_too_large")


async def test_a_full_server_says_when_to_come_back(start: StartServer):
    server = await start(ToyPlan(is_held=True), max_concurrent_calls=1)
    await server.submit(**one_call(wait=False))

    reply = await server.submit(**one_call())

    assert (reply.status_code, reply.json()["error"]["code"]) == (429, "saturated")
    assert reply.headers["Retry-After"] == "1"


async def test_the_number_of_sessions_is_bounded(start: StartServer):
    server = await start(max_sessions=1)
    session = (await server.submit(**one_call())).json()["session_id"]

    refused = await server.submit(**one_call())
    await server.client.delete(f"/v1/sessions/{session}")
    taken = await server.submit(**one_call())

    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "saturated")
    assert taken.status_code == 200


async def test_a_prompt_too_long_fails_its_variable_and_not_the_request(start: StartServer):
    server = await start()
    nodes = [call("a", "x" * 101 + "{{output:x}}"), call("b", "{{input:x}}{{output:y}}")]

    reply = await server.submit(nodes=nodes, outputs=wanted("y"))

    view = reply.json()["variables"]["y"]
    assert (reply.status_code, view["state"]) == (200, "failed")
    assert view["error"]["code"] == "prompt_too_long"
    assert (view["error"]["origin"], view["error"]["path"]) == ("x", ["x", "y"])


async def test_a_defect_is_logged_once_and_not_told(
    start: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    server = await start()
    monkeypatch.setattr(server.service, "submit", lambda *_: 1 / 0)

    reply = await server.submit(**one_call())

    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal")
    assert "division" not in reply.text
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == 1


async def test_errors_are_counted_by_code(start: StartServer):
    server = await start()
    await server.client.get("/v1/sessions/s")

    text = (await server.client.get("/metrics")).text

    assert 'parrot_errors_total{code="unknown_session"} 1.0' in text


async def put(client: httpx.AsyncClient, session: str, name: str) -> httpx.Response:
    return await client.put(f"/v1/variables/{session}.{name}", json={"value": "v"})
