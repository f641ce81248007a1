"""Sessions of a live server as programs: lengths, edges and think times, and no texts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from parrot_backend.core.criteria import CriteriaKind
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_backend.protocol import NodeView, SessionView, Usage
from parrot_backend.sim.from_sessions import SeenSession, arrivals_of, program_of, unfinished
from parrot_backend.sim.json_lines import ReadReport
from parrot_backend.sim.program import Constant, Output, Program, ProgramCall
from parrot_backend.sim.program_rows import row_of
from parrot_backend.sim.traces import read_programs, write_programs
from parrot_backend.sim.workloads.checks import WorkloadError
from tests.helpers.scripted_server import scripted_server
from tests.server.programs import Body, call, chain, external, one_call, wanted
from tests.server.test_control import BETTER, loop, skeleton


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    config = ScriptedConfig(token_s=0.0002)
    with (
        scripted_server(config) as server,
        httpx.Client(base_url=server.url, timeout=20) as client,
    ):
        yield client


def submit(client: httpx.Client, body: Body) -> str:
    reply = client.post("/v1/submit", json=body)
    assert reply.status_code == 200, reply.text
    session: str = reply.json()["session_id"]
    return session


def view_of(client: httpx.Client, session: str) -> SessionView:
    return SessionView.model_validate_json(client.get(f"/v1/sessions/{session}").content)


def recorded(client: httpx.Client, body: Body) -> tuple[Program, SessionView]:
    view = view_of(client, submit(client, body))
    return program_of(view), view


def usage_of(view: SessionView, output: str) -> Usage:
    (usage,) = [node.usage for node in view.nodes if node.output == output]
    assert usage is not None
    return usage


def prompt_tokens(program: Program) -> dict[str, int]:
    made = {one.name: one.output_tokens for one in program.calls}
    return {
        one.name: sum(p.tokens if isinstance(p, Constant) else made[p.call] for p in one.prompt)
        for one in program.calls
    }


def by_name(program: Program) -> dict[str, ProgramCall]:
    return {one.name: one for one in program.calls}


def test_a_chain_has_its_edges_and_its_lengths(client: httpx.Client):
    program, view = recorded(client, chain(app="coder"))
    assert program.app == "coder"
    assert [one.name for one in program.calls] == ["code", "test"]
    code, test = program.calls
    assert code.reads == ()
    assert test.reads == ("code",)
    for one in program.calls:
        usage = usage_of(view, one.name)
        assert one.output_tokens == usage.completion_tokens
        assert prompt_tokens(program)[one.name] == usage.prompt_tokens
        assert one.think_s == 0
    assert [name for name, _ in program.wanted] == ["test"]
    assert program.wanted[0][1].kind is CriteriaKind.LATENCY


def test_throughput_stays_throughput(client: httpx.Client):
    body = one_call(outputs=[{"variable": "out", "criteria": {"kind": "throughput"}}])
    program, _ = recorded(client, body)
    assert program.wanted[0][1].kind is CriteriaKind.THROUGHPUT


def test_what_came_through_a_map_is_waited_for(client: httpx.Client):
    program, view = recorded(client, skeleton())
    calls = by_name(program)
    assert list(calls) == ["outline", "expand:0:text", "out"]
    assert calls["expand:0:text"].after == ("outline",)
    assert calls["out"].after == ("expand:0:text",)
    assert all(not one.reads for one in calls.values())
    for name, tokens in prompt_tokens(program).items():
        assert tokens == usage_of(view, name).prompt_tokens
    assert [name for name, _ in program.wanted] == ["out"]


def test_rounds_of_a_loop_come_one_after_another(client: httpx.Client):
    refine = loop({"nodes": [BETTER], "result": "better"})
    body = {
        "variables": [external("x", "tea")],
        "nodes": [refine],
        "outputs": wanted("refined"),
    }
    program, _ = recorded(client, body)
    names = [one.name for one in program.calls]
    assert names == [f"refine:{number}:better" for number in range(3)]
    for before, one in zip(program.calls, program.calls[1:], strict=False):
        assert {*one.reads, *one.after} == {before.name}
    assert [name for name, _ in program.wanted] == names[-1:]


def test_a_client_that_thinks_in_between(client: httpx.Client):
    late = [call("a", "first {{output:a}}"), call("b", "{{input:a}} {{input:tool}}{{output:b}}")]
    body = {"variables": [external("tool")], "nodes": late, "outputs": wanted("a")}
    session = submit(client, body)
    time.sleep(0.1)
    client.put(f"/v1/variables/{session}.tool", json={"value": "found it"})
    client.get(f"/v1/variables/{session}.b", params={"wait": "true"})
    view = view_of(client, session)
    assert view.nodes[1].state == "finished"
    thought = by_name(program_of(view))["b"].think_s
    # As long as the server saw; and it cannot have been shorter than we slept.
    ready_s, ended_s = view.nodes[1].ready_s, view.nodes[0].finished_s
    assert ready_s is not None
    assert ended_s is not None
    assert thought == pytest.approx(ready_s - ended_s)
    assert thought >= 0.1
    assert by_name(program_of(view, round_trip_s=0.05))["b"].think_s == pytest.approx(
        thought - 0.05
    )
    assert 0 < by_name(program_of(view, round_trip_s=60.0))["b"].think_s < 1e-3


def test_calls_of_one_openai_session(client: httpx.Client):
    messages = [{"role": "system", "content": "Answer in a kind voice, as friends would do."}]
    for words in ("What is tea made of?", "And what is coffee made of?"):
        messages.append({"role": "user", "content": words})
        reply = client.post(
            "/v1/chat/completions",
            json={"model": "scripted", "messages": messages},
            headers={"x-parrot-session": "talk"},
        )
        messages.append(reply.json()["choices"][0]["message"])
    view = view_of(client, reply.headers["x-parrot-session-id"])
    program = program_of(view)
    assert len(program.calls) == 2
    first, second = program.calls
    # The server finds that the second prompt has the first output in it.
    assert second.reads == (first.name,)
    assert prompt_tokens(program) == {
        one.name: usage_of(view, one.name).prompt_tokens for one in program.calls
    }


def test_no_text_of_a_session_gets_into_its_program(client: httpx.Client, tmp_path: Path):
    secret = "xylophone"
    program, view = recorded(client, one_call(f"{secret} {secret} sings"))
    assert secret not in json.dumps(row_of(next(arrivals_of([SeenSession(1.0, view)]))))
    values = [v.value for v in view.variables if v.value]
    assert values
    assert all(value not in repr(program) for value in values)


def test_sessions_become_arrivals_and_go_through_a_file(client: httpx.Client, tmp_path: Path):
    ids = [submit(client, body) for body in (one_call(), chain(), skeleton())]
    seen = [SeenSession(60.0 * n, view_of(client, one)) for n, one in enumerate(ids)]
    arrivals = list(arrivals_of(reversed(seen)))
    assert [arrival.user for arrival in arrivals] == [f"session-{session}" for session in ids]
    assert arrivals[0].time_s == 0
    times = [arrival.time_s for arrival in arrivals]
    assert times == sorted(times)
    write_programs(tmp_path / "jobs.jsonl", arrivals)
    report = ReadReport()
    assert list(read_programs(tmp_path / "jobs.jsonl", report)) == arrivals
    assert not report.num_bad


def test_what_failed_is_left_out_and_told(client: httpx.Client):
    with scripted_server(ScriptedConfig(fail_on="break", fail_is_retryable=False)) as server:
        failing = httpx.Client(base_url=server.url, timeout=20)
        nodes = [
            call("good", "well {{output:good}}"),
            call("bad", "break {{output:bad}}"),
            call("after", "{{input:good}} {{input:bad}} {{output:after}}"),
        ]
        with failing:
            session = submit(failing, {"nodes": nodes, "outputs": wanted("good", "after")})
            view = view_of(failing, session)
            assert [one.name for one in program_of(view).calls] == ["good"]
            assert unfinished(view) == ("bad", "after")
            only = submit(failing, {"nodes": nodes[1:2], "outputs": wanted("bad")})
            with pytest.raises(WorkloadError, match="no finished call"):
                program_of(view_of(failing, only))


def node(output: str, prompt_tokens: int, made: int, at: float, **fields: Any) -> NodeView:
    usage = Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=made,
        cached_tokens=fields.pop("cached_tokens", 0),
    )
    given: dict[str, Any] = {
        "id": f"s.{output}#0",
        "kind": "request",
        "state": "finished",
        "inputs": (),
        "output": output,
        "objective": "latency",
        "created_s": 0.0,
        "ready_s": at,
        "finished_s": at + 1.0,
        "usage": usage,
    }
    return NodeView(**(given | fields))


def session(*nodes: NodeView, name: str = "s") -> SessionView:
    return SessionView(
        id=name, app="app", metadata={}, state="open", age_s=9.0, variables=(), nodes=nodes
    )


def test_what_was_cached_is_shared_by_calls_of_a_stage():
    view = session(
        node("a", 100, 5, 0.0, stage="plan"),
        node("b", 120, 5, 0.0, stage="plan", cached_tokens=80),
        node("c", 130, 5, 0.0, stage="plan", cached_tokens=80),
        node("d", 130, 5, 0.0, cached_tokens=80),
    )
    prompts = {one.name: one.prompt for one in program_of(view).calls}
    assert prompts["a"] == (Constant("session/s/a", 100),)
    assert prompts["b"] == (Constant("shared/app/plan", 80), Constant("session/s/b", 40))
    assert prompts["c"][0] == prompts["b"][0]
    assert prompts["d"][0] == Constant("shared/app/", 80)
    other = program_of(session(node("b", 120, 5, 0.0, stage="plan", cached_tokens=80), name="t"))
    assert other.calls[0].prompt[0] == prompts["b"][0]
    assert other.calls[0].prompt[1] != prompts["b"][1]


def test_outputs_that_do_not_fit_into_a_prompt_are_waited_for():
    view = session(node("a", 10, 50, 0.0), node("b", 30, 5, 1.0, inputs=("a",)))
    b = program_of(view).calls[1]
    assert (b.reads, b.after) == ((), ("a",))
    assert b.prompt == (Constant("session/s/b", 30),)


def test_a_prompt_that_is_all_read_has_nothing_of_its_own():
    view = session(node("a", 10, 30, 0.0), node("b", 30, 5, 1.0, inputs=("a",)))
    assert program_of(view).calls[1].prompt == (Output("a"),)


def test_a_first_call_that_came_late_was_thought_about():
    late = program_of(session(node("a", 10, 5, 0.0), node("b", 10, 5, 3.0)))
    assert [one.think_s for one in late.calls] == [0.0, 3.0]
