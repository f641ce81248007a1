"""Tenants over HTTP: what is one's is not there for another, and service is shared by weight."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from tests.server.conftest import StartServer, until
from tests.server.programs import Body, call, external, one_call, wanted
from tests.server.tenants import TenantServer, serve_tenants
from tests.server.toy_engine import ToyPlan

NEVER_WAS = "0" * 32
LONG = 2**20


def told(reply: httpx.Response, session: str) -> tuple[int, str, list[str]]:
    """Return all that a client learns of a session by a reply, but the id that it sent itself."""
    return reply.status_code, reply.text.replace(session, "ID"), sorted(reply.headers)


def chat(*texts: str, **fields: Any) -> Body:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return {"model": "toy", "messages": messages, **fields}


async def open_session(tenants: TenantServer, tenant: str = "alice") -> str:
    """Open a session with a value, a call that runs, and a variable to be set."""
    body = {
        "variables": [external("given", "word"), external("later")],
        "nodes": [call("runs", "{{input:given}}{{output:made}}")],
        "outputs": wanted("made"),
        "wait": False,
    }
    session: str = (await tenants.submit(tenant, **body))["session_id"]
    return session


async def test_what_is_anothers_is_as_if_it_never_was(start: StartServer, tmp_path: Path):
    plan = ToyPlan(is_held=True)
    tenants = await serve_tenants(start, tmp_path, plan)
    session = await open_session(tenants)
    await until(lambda: len(plan.engine.running) == 1)
    before = (await tenants.ask("alice", "GET", f"/v1/sessions/{session}")).json()
    routes = [
        route
        for route in tenants.server.app.routes
        if isinstance(route, APIRoute) and re.search(r"\{(session|variable)_id\}", route.path)
    ]
    bodies: list[Body | None] = [None, {}, {"value": "x"}, {"variables": ["made"]}, {"nodes": 3}]
    queries = ["", "?wait=true&timeout_s=0.01", "?stream=true", "?criteria=latency", "?oops=1"]
    num_asked = 0
    for route in routes:
        for method in sorted(route.methods):
            for name in ("made", "given", "later", "nothing"):
                for query in queries if method == "GET" else [""]:
                    for body in [None] if method in ("GET", "DELETE") else bodies:
                        answers = []
                        for one in (session, NEVER_WAS):
                            path = route.path.replace("{session_id}", one)
                            path = path.replace("{variable_id}", f"{one}.{name}")
                            reply = await tenants.ask("bob", method, f"{path}{query}", json=body)
                            answers.append(told(reply, one))
                        assert answers[0] == answers[1], (method, route.path, query, body)
                        assert answers[0][0] >= 400
                        num_asked += 1
    assert num_asked > 50
    after = (await tenants.ask("alice", "GET", f"/v1/sessions/{session}")).json()
    assert {**after, "age_s": 0} == {**before, "age_s": 0}
    assert len(plan.engine.running) == 1


@pytest.mark.parametrize("is_closed", [False, True])
async def test_nothing_is_added_to_anothers_session(
    start: StartServer, tmp_path: Path, is_closed: bool
):
    tenants = await serve_tenants(start, tmp_path)
    session = (await tenants.submit("alice", **one_call(), close=is_closed))["session_id"]
    nodes = [call("more", "{{input:out}}{{output:stolen}}")]
    answers = []
    for one in (session, NEVER_WAS):
        body = {"session_id": one, "nodes": nodes, "outputs": wanted("stolen")}
        answers.append(told(await tenants.ask("bob", "POST", "/v1/submit", json=body), one))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_one_key_of_a_repeat_of_two_tenants_is_two(start: StartServer, tmp_path: Path):
    tenants = await serve_tenants(start, tmp_path)
    bodies = [one_call(prompt, idempotency_key="k") for prompt in ("a", "a", "b")]
    first = (await tenants.submit("alice", **bodies[0]))["session_id"]
    again = (await tenants.submit("alice", **bodies[1]))["session_id"]
    other = (await tenants.submit("bob", **bodies[2]))["session_id"]
    assert again == first != other


async def test_names_of_sessions_of_openai_calls_are_each_tenants_own(
    start_listening: StartServer, tmp_path: Path
):
    tenants = await serve_tenants(start_listening, tmp_path, ToyPlan(max_model_len=LONG))

    async def session_of(tenant: str, *texts: str, **hints: Any) -> str:
        body = chat(*texts, parrot=hints) if hints else chat(*texts)
        reply = await tenants.ask(tenant, "POST", "/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        return reply.headers["x-parrot-session-id"]

    alice = await session_of("alice", "Hi", session="run")
    assert await session_of("alice", "Ho", session="run") == alice
    bob = await session_of("bob", "Hi", session="run")
    assert bob != alice
    # Neither by its id, nor because the words go on with a chat of hers.
    assert await session_of("bob", "Hi", session=alice) not in (alice, bob)
    assert await session_of("alice", "Hi", session=alice) == alice
    opening = await session_of("alice", "Tell me all.")
    said = (await tenants.ask("alice", "GET", f"/v1/sessions/{opening}")).json()["variables"]
    reply = next(one["value"] for one in said if one["state"] == "ready")
    assert await session_of("bob", "Tell me all.", reply, "More.") != opening
    assert await session_of("alice", "Tell me all.", reply, "More.") == opening


async def test_engines_learn_whose_a_call_is_and_only_its_own_equals_are_merged(
    start: StartServer, tmp_path: Path
):
    plan = ToyPlan(is_held=True)
    tenants = await serve_tenants(start, tmp_path, plan)
    nodes = [call("a", "x{{output:a}}", sampling={"max_tokens": 8, "temperature": 0})]
    body = {"nodes": nodes, "outputs": wanted("a")}
    asked = [asyncio.create_task(tenants.submit(t, **body)) for t in ("alice", "alice", "bob")]
    await until(lambda: len(tenants.server.service.coordinator.sessions) == 3)
    await until(lambda: len(plan.engine.running) == 2)
    started = [(one.tenant, one.cache_salt) for one in plan.engine.started]
    for attempt in list(plan.engine.running):
        plan.engine.finish("word", attempt)
    replies = await asyncio.gather(*asked)
    assert started == [("alice", "alice"), ("bob", "bob")]
    assert [reply["variables"]["a"]["value"] for reply in replies] == ["word"] * 3
    assert tenants.server.service.coordinator.optimiser.num_merged == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tenant_weights": {"alice": 3}}, {"alice": 48, "bob": 16}),
        ({}, {"alice": 32, "bob": 32}),
        ({"fair": False}, {"alice": 64}),
    ],
)
async def test_service_is_shared_by_weight(
    start: StartServer, tmp_path: Path, settings: dict[str, Any], expected: dict[str, int]
):
    plan = ToyPlan(is_held=True, max_requests=1)
    tenants = await serve_tenants(start, tmp_path, plan, **settings)
    # What is charged is what is served: no output is shorter than its limit.
    nodes = [call("greet", "hello{{output:out}}", sampling={"max_tokens": 20})]
    for tenant in ("alice", "bob"):
        for _ in range(70):
            await tenants.submit(tenant, nodes=nodes, outputs=wanted("out"), wait=False)
    for number in range(1, 66):
        await until(lambda wanted=number: len(plan.engine.started) == wanted)  # type: ignore[misc]
        plan.engine.finish("x" * 20)
    # The first ran before anybody had to wait.
    served = Counter(one.tenant for one in plan.engine.started[1:65])
    for tenant, count in expected.items():
        assert abs(served[tenant] - count) <= 2, served


async def test_a_shared_session_ends_for_its_tenant(start_listening: StartServer, tmp_path: Path):
    plan = ToyPlan(is_held=True, max_model_len=LONG)
    tenants = await serve_tenants(start_listening, tmp_path, plan)

    async def ask(*texts: str) -> httpx.Response:
        return await tenants.ask("alice", "POST", "/v1/chat/completions", json=chat(*texts))

    first = asyncio.create_task(ask("Hi"))
    await until(lambda: len(plan.engine.running) == 1)
    plan.engine.finish("Hello")
    session = (await first).headers["x-parrot-session-id"]
    second = asyncio.create_task(ask("Hi", "Hello", "More"))
    await until(lambda: len(plan.engine.running) == 1)

    ended = await tenants.ask("alice", "DELETE", f"/v1/sessions/{session}")
    plan.engine.finish("done")
    reply = await second

    assert ended.status_code == 204
    assert (reply.status_code, reply.headers["x-parrot-session-id"]) == (200, session)
    await until(lambda: not tenants.server.service.coordinator.sessions.get(session))  # type: ignore[arg-type]
