"""Calls of OpenAI's API in sessions, and what is found of them, over real connections."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from parrot_backend.core.ids import SessionId
from parrot_backend.core.nodes import Request
from tests.helpers.agent_traffic import TrafficCall, metagpt_calls
from tests.server.conftest import RunningServer, StartServer, until
from tests.server.toy_engine import ToyPlan

_LONG = "The harbour lies in a bay that opens to the north, and ships wait outside until spring."


def replaying(calls: Sequence[TrafficCall]) -> ToyPlan:
    """Return an engine that says what the model said."""
    replies = {"".join(call.texts): call.reply for call in calls}
    return ToyPlan(replies.__getitem__, max_model_len=2**20)


async def ask(
    server: RunningServer, *texts: str, session: str | None = None, **fields: Any
) -> httpx.Response:
    """Send a chat: the system's message, then the user's and the assistant's by turns."""
    roles = ["system", *("user", "assistant") * len(texts)]
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    headers = {} if session is None else {"x-parrot-session": session}
    body = {"model": "toy", "messages": messages, **fields}
    reply = await server.client.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


def session_of(reply: httpx.Response) -> str:
    return reply.headers["x-parrot-session-id"]


async def view_of(server: RunningServer, session: str) -> dict[str, Any]:
    reply = await server.client.get(f"/v1/sessions/{session}")
    assert reply.status_code == 200
    view: dict[str, Any] = reply.json()
    return view


async def play(server: RunningServer, calls: Sequence[TrafficCall], name: str) -> dict[str, Any]:
    """Run the calls, those of a stage at once, and return the session's view."""
    waves: dict[int, list[TrafficCall]] = {}
    for call in calls:
        waves.setdefault(call.waits, []).append(call)
    replies: list[httpx.Response] = []
    for wave in waves.values():
        replies += await asyncio.gather(*(ask(server, *c.texts, session=name) for c in wave))
    (session,) = {session_of(reply) for reply in replies}
    return await view_of(server, session)


async def test_the_coding_task_is_seen_as_its_graph(start_listening: StartServer):
    calls = list(metagpt_calls(4))
    server = await start_listening(replaying(calls))

    view = await play(server, calls, "run")

    by_prompt = {"".join(call.texts): call for call in calls}
    name_of = {by_prompt_reply(view, node): node["output"] for node in view["nodes"]}
    reads = {
        call.name: {name_of[by.reply] for by in calls if by.name in call.reads} for call in calls
    }
    found = {node["output"]: node["found"] for node in view["nodes"]}
    assert len(by_prompt) == len(view["nodes"]) == 29
    assert sum(len(one["reads"]) for one in found.values()) == 136
    for call in calls:
        assert set(found[name_of[call.reply]]["reads"]) == reads[call.name]
    assert sorted({one["stage"] for one in found.values()}) == list(range(8))
    assert all(node["inputs"] == [] for node in view["nodes"])
    metrics = (await server.client.get("/metrics")).text
    assert "parrot_discovered_edges_total 136.0" in metrics
    assert 'parrot_discovery_prompt_chars_total{source="value"}' in metrics
    assert "parrot_discovery_submit_seconds_count 29.0" in metrics


def by_prompt_reply(view: dict[str, Any], node: dict[str, Any]) -> str:
    """Return the value that a node made."""
    (value,) = [v["value"] for v in view["variables"] if v["name"] == node["output"]]
    assert isinstance(value, str)
    return value


async def test_the_second_run_is_foreseen(start_listening: StartServer):
    first, second = list(metagpt_calls(4, seed=1)), list(metagpt_calls(4, seed=2))
    plan = replaying(first)
    server = await start_listening(plan)
    seen = await play(server, first, "first")
    assert {node["objective"] for node in seen["nodes"]} == {"latency"}
    assert (await server.client.delete(f"/v1/sessions/{seen['id']}")).status_code == 204
    plan.answer = replaying(second).answer  # both begin with the same prompt
    seen = await play(server, second, "second")

    by_stage: dict[int, list[dict[str, Any]]] = {}
    for node in seen["nodes"]:
        by_stage.setdefault(node["found"]["stage"], []).append(node)
    assert [by_stage[stage][0]["found"]["stages_to_come"] for stage in range(8)] == [
        *range(7, -1, -1)
    ]
    for stage in range(1, 7):
        assert {node["objective"] for node in by_stage[stage]} == {"task_group"}
        assert len({node["group"] for node in by_stage[stage]}) == 1
    for stage in (0, 7):
        assert {node["objective"] for node in by_stage[stage]} == {"latency"}


@pytest.mark.parametrize("setting", ["discovery", "discovery_learns"])
async def test_what_is_switched_off_is_not_done(start_listening: StartServer, setting: str):
    calls = list(metagpt_calls(2))
    server = await start_listening(replaying(calls), **{setting: False})
    for name in ("first", "second"):
        view = await play(server, calls, name)
        await server.client.delete(f"/v1/sessions/{view['id']}")

    found = [node["found"] for node in view["nodes"]]

    assert {node["objective"] for node in view["nodes"]} == {"latency"}
    if setting == "discovery":
        assert set(found) == {None}
    else:
        assert sum(len(one["reads"]) for one in found) > 0
        assert {one["stages_to_come"] for one in found} == {0}


async def test_a_chat_goes_on_in_its_session(start_listening: StartServer):
    server = await start_listening()
    first = await ask(server, "Be brief.", "Hello")
    said = first.json()["choices"][0]["message"]["content"]

    second = await ask(server, "Be brief.", "Hello", said, "And now?")
    other = await ask(server, "Be brief.", "Hello", "Somebody else said this.", "And now?")

    assert session_of(second) == session_of(first) != session_of(other)
    nodes = (await view_of(server, session_of(first)))["nodes"]
    assert [node["output"] for node in nodes] == ["call1", "call2"]


async def test_a_chat_without_a_name_joins_none_that_has_one(start_listening: StartServer):
    server = await start_listening()
    first = await ask(server, "Be brief.", "Hello", session="run")
    said = first.json()["choices"][0]["message"]["content"]

    second = await ask(server, "Be brief.", "Hello", said, "And now?")

    assert session_of(second) != session_of(first)


async def test_a_chat_that_was_streamed_goes_on(start_listening: StartServer):
    server = await start_listening()
    first = await ask(server, "Be brief.", "Hello", stream=True)
    events = [line[6:] for line in first.text.split("\n") if line.startswith("data: {")]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    said = "".join(delta.get("content", "") for delta in deltas)

    second = await ask(server, "Be brief.", "Hello", said, "And now?")

    assert said
    assert session_of(second) == session_of(first)


async def test_without_discovery_each_request_has_a_session_that_ends(
    start_listening: StartServer,
):
    server = await start_listening(discovery=False)
    first = await ask(server, "Be brief.", "Hello")
    said = first.json()["choices"][0]["message"]["content"]

    second = await ask(server, "Be brief.", "Hello", said, "And now?")

    assert session_of(second) != session_of(first)
    assert (await view_of(server, session_of(first)))["state"] == "closed"


@pytest.mark.parametrize(
    "fields",
    [
        {"parrot": {"session": "mine"}},
        {"parrot": {"session": "mine", "app": "reports"}},
        {"session_id": "mine"},
        {"user": "mine"},
    ],
)
async def test_a_name_keeps_calls_together(start_listening: StartServer, fields: dict[str, Any]):
    server = await start_listening()
    mine = [session_of(await ask(server, "Be brief.", text, **fields)) for text in ("a", "b")]
    theirs = session_of(await ask(server, "Be brief.", "c", session="theirs"))
    elsewhere = session_of(await ask(server, "Be.", "c", parrot={"session": "mine", "app": "x"}))

    user = session_of(await ask(server, "Be.", "c", user="theirs"))

    assert mine[0] == mine[1]
    assert len({mine[0], theirs, elsewhere, user}) == 4


async def test_a_session_that_a_reply_has_told_is_a_name_too(start_listening: StartServer):
    server = await start_listening()
    submitted = await server.submit(
        nodes=[{"kind": "call", "name": "call2", "prompt": "x {{output:call3}}"}],
        outputs=[{"variable": "call3"}],
    )
    session = submitted.json()["session_id"]

    replies = [await ask(server, "Be brief.", text, session=session) for text in ("a", "b")]

    assert [session_of(reply) for reply in replies] == [session, session]
    nodes = (await view_of(server, session))["nodes"]
    assert [node["output"] for node in nodes] == ["call3", "call4", "call5"]


async def test_a_session_that_has_ended_is_opened_anew(start_listening: StartServer):
    server = await start_listening()
    first = session_of(await ask(server, "Be brief.", "a", session="run"))
    await server.client.delete(f"/v1/sessions/{first}")

    second = session_of(await ask(server, "Be brief.", "b", session="run"))
    by_id = session_of(await ask(server, "Be brief.", "b", session=first))

    assert len({first, second, by_id}) == 3
    assert second == session_of(await ask(server, "Be brief.", "c", session="run"))


async def test_an_idle_session_ends(start_listening: StartServer):
    server = await start_listening(openai_session_ttl_s=0.05)
    first = session_of(await ask(server, "Be brief.", "a", session="run"))
    await until(lambda: len(server.service.coordinator.sessions) == 0)

    assert session_of(await ask(server, "Be brief.", "b", session="run")) != first


async def test_a_full_session_is_followed_by_another(start_listening: StartServer):
    server = await start_listening(max_graph_nodes=3)
    replies = [await ask(server, "Be.", str(number), session="run") for number in range(4)]
    together = await ask(server, "Be.", "five", session="run", n=3)

    sessions = [session_of(reply) for reply in [*replies, together]]

    assert sessions[0] == sessions[1] == sessions[2] != sessions[3]
    assert sessions[4] not in sessions[:4]
    assert len(together.json()["choices"]) == 3


async def test_the_idlest_session_makes_room(start_listening: StartServer):
    plan = ToyPlan()
    server = await start_listening(plan, max_sessions=2)
    first, second = [session_of(await ask(server, "Be.", text)) for text in "ab"]

    third = session_of(await ask(server, "Be.", "c"))

    live = {session.id for session in server.service.coordinator.sessions}
    assert live == {second, third}
    assert first not in live


async def test_sessions_at_work_are_not_ended_to_make_room(start_listening: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start_listening(plan, max_sessions=1)
    asked = asyncio.create_task(ask(server, "Be.", "a", session="run"))
    await until(lambda: len(plan.engine.running) == 1)

    messages = [{"role": "user", "content": "b"}]
    refused = await server.client.post("/v1/chat/completions", json={"messages": messages})

    assert refused.status_code == 429
    plan.engine.finish("done")
    assert (await asked).json()["choices"][0]["message"]["content"] == "done"


async def test_a_client_that_leaves_takes_its_own_call_with_it(start_listening: StartServer):
    plan = ToyPlan(is_held=True, max_model_len=1000)
    server = await start_listening(plan)
    leaving = asyncio.create_task(ask(server, "Be.", "a", session="run"))
    await until(lambda: len(plan.engine.running) == 1)
    staying = asyncio.create_task(ask(server, "Be.", "b", session="run"))
    await until(lambda: len(plan.engine.running) == 2)

    leaving.cancel()

    await until(lambda: len(plan.engine.running) == 1)
    plan.engine.finish(_LONG)
    session = session_of(await staying)
    plan.is_held = False
    third = await ask(server, "Be.", f"Go on with this: {_LONG}", session="run")
    nodes = (await view_of(server, session))["nodes"]
    assert session_of(third) == session
    assert [node["state"] for node in nodes] == ["cancelled", "finished", "finished"]
    assert [node["found"]["reads"] for node in nodes] == [[], [], ["call2"]]


async def test_choices_of_a_request_are_calls_beside_each_other(start_listening: StartServer):
    server = await start_listening()
    reply = await ask(server, "Be brief.", _LONG, session="run", n=3)

    nodes = (await view_of(server, session_of(reply)))["nodes"]

    assert [node["output"] for node in nodes] == ["call1", "call2", "call3"]
    assert [node["found"]["stage"] for node in nodes] == [0, 0, 0]


async def test_a_raw_prompt_without_a_name_has_a_session_that_takes_nothing_more(
    start_listening: StartServer,
):
    server = await start_listening()
    body = {"model": "toy", "prompt": ["one", "two"]}
    alone = await server.client.post("/v1/completions", json=body)
    named = await server.client.post("/v1/completions", json={**body, "user": "me"})

    assert (await view_of(server, session_of(alone)))["state"] == "closed"
    assert (await view_of(server, session_of(named)))["state"] == "open"


@pytest.mark.parametrize("seed", range(4))
async def test_replies_are_the_same_with_and_without_discovery(
    start_listening: StartServer, seed: int
):
    rng = random.Random(seed)
    servers = [
        await start_listening(ToyPlan(max_model_len=2**20), discovery=is_on)
        for is_on in (True, False)
    ]
    said = [_LONG]
    for _ in range(25):
        texts = ["Be brief.", *(" ".join(rng.choices(said, k=rng.randrange(1, 4))),) * 3]
        fields: dict[str, Any] = {"n": rng.choice([1, 1, 3]), "stream": rng.random() < 0.3}
        name = rng.choice([None, "a", "b"])
        replies = [await ask(server, *texts, session=name, **fields) for server in servers]
        bodies = [_without_ids(reply) for reply in replies]
        assert bodies[0] == bodies[1]
        if not fields["stream"]:
            said.append(replies[0].json()["choices"][0]["message"]["content"][:500])


def _without_ids(reply: httpx.Response) -> str:
    text = reply.text.replace(session_of(reply), "")
    return re.sub(r'"(id|created)":\s*("[^"]*"|\d+)|choice\d|call\d', "", text)


@pytest.mark.parametrize(("placement", "num_bounded"), [("paper", 3), ("cost", 4)])
async def test_calls_that_ask_for_nothing_run_together_as_far_as_there_is_room(
    start_listening: StartServer, placement: str, num_bounded: int
):
    # 10,000 tokens of memory; by the paper's rule 5,000 for what asks for latency.
    plan = ToyPlan(is_held=True, max_model_len=2000)
    server = await start_listening(plan, placement=placement)
    long = {"max_tokens": 1300, "ignore_eos": True}

    def send(**hints: str) -> list[asyncio.Task[httpx.Response]]:
        body = {"messages": [{"role": "user", "content": "Go."}], "parrot": hints, **long}
        sending = [server.client.post("/v1/chat/completions", json=body) for _ in range(4)]
        return [asyncio.create_task(each) for each in sending]

    bounded = send(perf="latency")
    await until(lambda: len(plan.engine.running) == num_bounded)
    free = send()
    await until(lambda: len(plan.engine.running) == 7)
    assert server.service.coordinator.num_unfinished_calls == 8

    plan.is_held = False
    while not all(each.done() for each in bounded + free):
        plan.engine.finish("done")
        await asyncio.sleep(0.01)
    assert {each.result().status_code for each in bounded + free} == {200}


async def test_only_a_name_for_a_run_gives_all_calls_one_place(start_listening: StartServer):
    server = await start_listening(ToyPlan(lambda prompt: "ok"))

    async def places(**name: Any) -> list[int]:
        for number in range(2):
            reply = await ask(server, "Be brief.", f"Question {number}", **name)
        session = server.service.coordinator.session(SessionId(session_of(reply)))
        return [n.session_order for n in session.graph.nodes.values() if isinstance(n, Request)]

    assert len(set(await places(session="a run"))) == 1
    assert len(set(await places(user="somebody"))) == 2
    assert len(set(await places(session_id="something"))) == 2
