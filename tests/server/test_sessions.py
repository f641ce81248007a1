from __future__ import annotations

import asyncio

from tests.server.conftest import StartServer, until
from tests.server.programs import chain, one_call
from tests.server.toy_engine import ToyPlan


async def test_a_session_shows_its_graph(start: StartServer):
    server = await start()
    metadata = {"user": "ada", "n": 3}
    submitted = await server.submit(**chain(app="snake", metadata=metadata))
    session = submitted.json()["session_id"]

    view = (await server.client.get(f"/v1/sessions/{session}")).json()

    assert (view["app"], view["metadata"], view["state"]) == ("snake", metadata, "open")
    assert {v["name"]: v["state"] for v in view["variables"]} == {
        "task": "ready",
        "test": "ready",
        "code": "ready",
    }
    code, test = view["nodes"]
    assert (code["inputs"], code["output"]) == (["task"], "code")
    assert (test["inputs"], test["output"]) == (["task", "code"], "test")


async def test_a_node_shows_what_became_of_it(start: StartServer):
    server = await start()
    session = (await server.submit(**one_call())).json()["session_id"]

    node = (await server.client.get(f"/v1/sessions/{session}")).json()["nodes"][0]

    assert (node["kind"], node["state"], node["engine"]) == ("request", "finished", "toy-0")
    assert (node["objective"], node["attempts"]) == ("latency", 1)
    assert node["usage"]["prompt_tokens"] == 2
    assert node["reason"]
    times = [node[f"{name}_s"] for name in ("created", "ready", "placed", "first_token")]
    assert times == sorted(times)
    assert 0 <= times[-1] <= node["finished_s"] < 1


async def test_deleting_a_session_answers_who_waits_and_forgets_it(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    session = (await server.submit(**one_call(wait=False))).json()["session_id"]
    getting = asyncio.create_task(server.client.get(f"/v1/variables/{session}.out?wait=true"))
    await until(lambda: server.service.runtime.num_waiters == 1)

    reply = await server.client.delete(f"/v1/sessions/{session}")

    assert reply.status_code == 204
    assert (await getting).json()["state"] == "cancelled"
    assert len(plan.engine.aborted) == 1
    assert (await server.client.get(f"/v1/sessions/{session}")).status_code == 404


async def test_cancelling_a_variable_takes_its_dependants_with_it(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    session = (await server.submit(**chain(wait=False))).json()["session_id"]

    reply = await server.client.post(f"/v1/sessions/{session}/cancel", json={"variables": ["code"]})

    view = (await server.client.get(f"/v1/sessions/{session}")).json()
    states = {v["name"]: v["state"] for v in view["variables"]}
    assert reply.status_code == 204
    assert states == {"task": "ready", "code": "cancelled", "test": "cancelled"}
    assert len(plan.engine.aborted) == 1


async def test_cancelling_without_a_body_cancels_everything(start: StartServer):
    server = await start(ToyPlan(is_held=True))
    session = (await server.submit(**chain(wait=False))).json()["session_id"]

    await server.client.post(f"/v1/sessions/{session}/cancel")

    assert server.service.coordinator.num_unfinished_calls == 0


async def test_a_value_stays_when_its_session_is_cancelled(start: StartServer):
    server = await start(ToyPlan(answer=lambda prompt: "kept"))
    session = (await server.submit(**one_call())).json()["session_id"]

    await server.client.post(f"/v1/sessions/{session}/cancel")

    view = (await server.client.get(f"/v1/variables/{session}.out")).json()
    assert (view["state"], view["value"]) == ("ready", "kept")


async def test_an_idle_session_is_forgotten(start: StartServer):
    server = await start(session_ttl_s=0.05)
    session = (await server.submit(**one_call())).json()["session_id"]

    await until(lambda: len(server.service.coordinator.sessions) == 0)

    assert (await server.client.get(f"/v1/sessions/{session}")).status_code == 404


async def test_the_timeline_shows_the_calls_of_a_session(start: StartServer):
    server = await start()
    session = (await server.submit(**chain())).json()["session_id"]

    trace = (await server.client.get(f"/v1/sessions/{session}/timeline")).json()

    slices = [e["name"] for e in trace["traceEvents"] if e["ph"] == "X" and e["pid"] == 2]
    assert slices == ["write_code#0", "prefill", "decode", "write_test#0", "prefill", "decode"]
