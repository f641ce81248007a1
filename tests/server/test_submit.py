from __future__ import annotations

import asyncio

from tests.server.conftest import StartServer, until
from tests.server.programs import Body, call, chain, external, one_call, wanted
from tests.server.toy_engine import ToyPlan


async def test_a_whole_program_runs_in_one_round_trip(start: StartServer):
    server = await start(ToyPlan(answer=lambda prompt: prompt.upper().replace(": ", "!")))

    reply = await server.submit(**chain())

    assert reply.status_code == 200
    variables = reply.json()["variables"]
    assert variables["code"]["value"] == "CODE SNAKE!"
    assert variables["test"]["value"] == "TEST SNAKE CODE SNAKE!!"


async def test_a_value_comes_with_id_usage_and_finish_reason(start: StartServer):
    server = await start(ToyPlan(answer=lambda prompt: "hello"))

    body = (await server.submit(**one_call("hi "))).json()

    assert body["variables"]["out"] == {
        "id": f"{body['session_id']}.out",
        "name": "out",
        "state": "ready",
        "value": "hello",
        "error": None,
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "cached_tokens": 0},
        "finish_reason": "stop",
        "tool_calls": [],
        "reasoning": None,
        "logprobs": None,
    }


async def test_outputs_of_one_prompt_are_generated_in_order(start: StartServer):
    server = await start(ToyPlan(answer=lambda prompt: str(len(prompt))))
    prompt = "ab{{output:first}}cd{{output:second}}"

    reply = await server.submit(nodes=[call("two", prompt)], outputs=wanted("first", "second"))

    values = {name: view["value"] for name, view in reply.json()["variables"].items()}
    assert values == {"first": "2", "second": "5"}


async def test_chat_messages_reach_the_engine_with_their_roles(start: StartServer):
    plan = ToyPlan()
    server = await start(plan)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input", "variable": "question"}]},
        {"role": "assistant", "content": "{{output:reply}}"},
    ]

    await server.submit(
        variables=[external("question", "{{output:not_read}}")],
        nodes=[{"kind": "call", "name": "chat", "messages": messages}],
        outputs=wanted("reply"),
    )

    parts = [(part.kind.value, part.text) for part in plan.engine.started[0].parts]
    assert parts == [
        ("role", "system"),
        ("constant", "Be brief."),
        ("role", "user"),
        ("value", "{{output:not_read}}"),
        ("role", "assistant"),
    ]


async def test_an_output_may_have_sampling_of_its_own(start: StartServer):
    plan = ToyPlan()
    server = await start(plan)
    own = {"type": "output", "variable": "b", "sampling": {"max_tokens": 7, "stop": ["."]}}
    prompt: list[Body] = [
        {"type": "text", "text": "x"},
        {"type": "output", "variable": "a"},
        own,
    ]

    await server.submit(
        nodes=[call("two", prompt, sampling={"max_tokens": 5})], outputs=wanted("a", "b")
    )

    samplings = [request.sampling for request in plan.engine.started]
    assert [sampling.max_tokens for sampling in samplings] == [5, 7]
    assert [sampling.stop for sampling in samplings] == [(), (".",)]


async def test_transforms_run_on_the_server(start: StartServer):
    server = await start(ToyPlan(answer=lambda prompt: '{"title": " Go "}'))
    title = {
        "kind": "transform",
        "name": "pick",
        "content": "{{input:out}}",
        "transforms": [{"op": "json_field", "path": "title"}, {"op": "strip"}],
        "output": "title",
    }
    nodes = [call("ask", "x{{output:out}}"), title]

    reply = await server.submit(nodes=nodes, outputs=wanted("title"))

    assert reply.json()["variables"]["title"]["value"] == "Go"


async def test_without_wait_the_reply_comes_at_once(start: StartServer):
    server = await start(ToyPlan(is_held=True))

    reply = await server.submit(**one_call(wait=False))

    assert reply.json()["variables"]["out"]["state"] == "empty"
    assert server.service.runtime.num_waiters == 0


async def test_when_time_is_up_the_reply_holds_what_is_settled(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)

    waiting = asyncio.create_task(server.submit(**chain(timeout_s=0.2)))
    await until(lambda: bool(plan.made and plan.engine.running))
    plan.engine.finish("pass")
    states = {n: v["state"] for n, v in (await waiting).json()["variables"].items()}

    assert states == {"code": "ready", "test": "empty"}
    assert server.service.runtime.num_waiters == 0


async def test_a_timeout_is_not_a_disconnect(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)

    await server.submit(**one_call(timeout_s=0.05, on_disconnect="cancel"))

    assert plan.engine.running
    assert plan.engine.aborted == []


async def test_the_server_bounds_every_wait(start: StartServer):
    server = await start(ToyPlan(is_held=True), max_wait_s=0.05)

    reply = await server.submit(**one_call(timeout_s=1000))

    assert reply.json()["variables"]["out"]["state"] == "empty"


async def test_calls_can_be_added_to_a_live_session(start: StartServer):
    server = await start(ToyPlan(answer=lambda prompt: prompt + "."))
    session = (await server.submit(**one_call("a"))).json()["session_id"]

    more = [call("again", "{{input:out}}{{output:more}}")]
    reply = await server.submit(session_id=session, nodes=more, outputs=wanted("more"))

    assert reply.json()["session_id"] == session
    assert reply.json()["variables"]["more"]["value"] == "a.."


async def test_a_deadline_counts_from_the_submit(start: StartServer):
    plan = ToyPlan()
    server = await start(plan)
    before_s = server.service.clock.now_s()
    outputs = [{"variable": "out", "criteria": {"kind": "throughput", "deadline_s": 9.0}}]

    await server.submit(**one_call(outputs=outputs))

    objective = plan.engine.started[0].objective
    assert objective.objective_class.name == "LATENCY"
    assert objective.deadline_s is not None
    assert 9.0 <= objective.deadline_s - before_s < 10.0


async def test_a_repeat_with_the_same_key_finds_the_first_session(start: StartServer):
    plan = ToyPlan()
    server = await start(plan)

    first = (await server.submit(**one_call(idempotency_key="k"))).json()
    second = (await server.submit(**one_call(idempotency_key="k", timeout_s=5.0))).json()

    assert second == first
    assert len(plan.engine.started) == 1


async def test_a_repeat_waits_for_the_first_ones_work(start: StartServer):
    plan = ToyPlan(is_held=True)
    server = await start(plan)
    body = one_call(idempotency_key="k")

    both = [asyncio.create_task(server.submit(**body)) for _ in range(2)]
    await until(lambda: server.service.runtime.num_waiters == 2)
    plan.engine.finish("once")
    replies = [(await task).json() for task in both]

    assert replies[0] == replies[1]
    assert replies[0]["variables"]["out"]["value"] == "once"


async def test_many_clients_at_once_each_get_their_own_value(start: StartServer):
    server = await start(ToyPlan(max_requests=3), ToyPlan(max_requests=3))

    replies = await asyncio.gather(*(server.submit(**one_call(str(n))) for n in range(50)))

    values = [reply.json()["variables"]["out"]["value"] for reply in replies]
    assert values == [f"<{n}>" for n in range(50)]
