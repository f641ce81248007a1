from __future__ import annotations

import asyncio

from tests.server.conftest import RunningServer, StartServer, until
from tests.server.programs import call, external, one_call, wanted
from tests.server.toy_engine import ToyPlan


async def with_external(server: RunningServer) -> str:
    """Submit a call that waits for the external variable ``x``; return the session."""
    reply = await server.submit(
        variables=[external("x")],
        nodes=[call("use", "got {{input:x}}{{output:y}}")],
        outputs=wanted("y"),
        wait=False,
    )
    return str(reply.json()["session_id"])


async def test_without_options_a_get_answers_at_once(start: StartServer):
    server = await start()
    session = await with_external(server)

    view = (await server.client.get(f"/v1/variables/{session}.y")).json()

    assert (view["state"], view["value"]) == ("empty", None)


async def test_a_waiting_get_is_answered_when_the_value_is_there(start: StartServer):
    server = await start()
    session = await with_external(server)

    getting = asyncio.create_task(server.client.get(f"/v1/variables/{session}.y?wait=true"))
    await until(lambda: server.service.runtime.num_waiters == 1)
    await server.client.put(f"/v1/variables/{session}.x", json={"value": "it"})

    assert (await getting).json()["value"] == "<got it>"
    assert server.service.runtime.num_waiters == 0


async def test_a_set_replies_with_the_variable(start: StartServer):
    server = await start()
    session = await with_external(server)

    reply = await server.client.put(f"/v1/variables/{session}.x", json={"value": "it"})

    assert (reply.json()["state"], reply.json()["value"]) == ("ready", "it")


async def test_a_get_gives_up_waiting_after_its_timeout(start: StartServer):
    server = await start()
    session = await with_external(server)

    view = await server.client.get(f"/v1/variables/{session}.y?wait=true&timeout_s=0.05")

    assert view.json()["state"] == "empty"
    assert server.service.runtime.num_waiters == 0


async def test_a_get_can_change_the_criteria(start: StartServer):
    plan = ToyPlan()
    server = await start(plan)
    reply = await server.submit(
        variables=[external("x")], nodes=[call("use", "{{input:x}}{{output:y}}")]
    )
    session = reply.json()["session_id"]
    before_s = server.service.clock.now_s()

    await server.client.get(f"/v1/variables/{session}.y?criteria=throughput&deadline_s=50")
    await server.client.put(f"/v1/variables/{session}.x", json={"value": "it"})
    await until(lambda: bool(plan.engine.started))

    objective = plan.engine.started[0].objective
    assert objective.objective_class.name == "LATENCY"
    assert objective.deadline_s is not None
    assert 50 <= objective.deadline_s - before_s < 51
    assert server.service.runtime.num_waiters == 0


async def test_a_failed_variable_is_a_good_reply(start: StartServer):
    server = await start()
    reply = await server.submit(**one_call("x" * 200))
    session = reply.json()["session_id"]

    view = await server.client.get(f"/v1/variables/{session}.out?wait=true")

    assert (view.status_code, view.json()["state"]) == (200, "failed")
    assert view.json()["error"]["code"] == "prompt_too_long"
