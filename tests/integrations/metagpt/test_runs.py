"""Runs of small teams on a real server with a scripted engine: sessions, names, and bad luck."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from metagpt.actions import Action, UserRequirement
from metagpt.config2 import Config
from metagpt.configs.llm_config import LLMConfig, LLMType
from metagpt.context import Context
from metagpt.provider.openai_api import OpenAILLM
from metagpt.roles import Role
from metagpt.schema import Message
from metagpt.team import Team

from parrot_backend.engines.scripted import ScriptedConfig
from parrot_integrations.metagpt import ParrotLLM, TeamRun, install, watch_runs
from parrot_integrations.metagpt.runs import new_run
from tests.helpers.scripted_server import ScriptedServer, scripted_server

pytestmark = pytest.mark.e2e

IDEA = "Write a game in which snakes eat."


class Answer(Action):  # type: ignore[misc] # MetaGPT is not typed
    """Says something of what the team was asked for."""

    async def run(self, task: str) -> str:
        text: str = await self._aask(f"Do: {task}")
        return text


class Member(Role):  # type: ignore[misc] # MetaGPT is not typed
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.set_actions([Answer])
        self._watch([UserRequirement])

    async def _act(self) -> Message:
        text = await self.rc.todo.run(self.rc.memory.get()[0].content)
        message = Message(content=text, role=self.profile, cause_by=Answer)
        self.rc.memory.add(message)
        return message


async def run_team(server: ScriptedServer, *names: str) -> None:
    llm = {"api_type": "openai", "base_url": f"{server.url}/v1", "api_key": "none"}
    given = {**llm, "model": "default", "max_token": 40, "calc_usage": False, "stream": False}
    team = Team(context=Context(config=Config.from_llm_config(given)))
    team.hire([Member(name=name, profile=name, context=team.env.context) for name in names])
    team.invest(10)
    await team.run(n_round=2, idea=IDEA, auto_archive=False)


def nodes_of(run: TeamRun) -> list[str]:
    return sorted(node.output for view in run.views for node in view.nodes)


@pytest.mark.usefixtures("installed")
async def test_teams_at_once_have_sessions_of_their_own(server: ScriptedServer) -> None:
    with watch_runs() as runs:
        await asyncio.gather(*(run_team(server, f"A{i}", f"B{i}") for i in range(4)))
    assert sorted(map(nodes_of, runs)) == [[f"Answer-A{i}", f"Answer-B{i}"] for i in range(4)]
    assert len({view.id for run in runs for view in run.views}) == 4
    server.wait_until_empty()


@pytest.mark.usefixtures("installed")
async def test_a_second_installation_makes_no_second_run(server: ScriptedServer) -> None:
    uninstall = install()
    with watch_runs() as runs:
        await run_team(server, "Bob")
    uninstall()
    assert [(run.num_calls, len(run.views)) for run in runs] == [(1, 1)]


@pytest.mark.usefixtures("installed")
async def test_names_outside_ascii_stay_apart(server: ScriptedServer) -> None:
    with watch_runs() as runs:
        await run_team(server, "架构师", "审阅者", "Zoë")
    found = nodes_of(runs[0])
    assert "Answer-Zo-ija" in found
    assert len(found) == 3
    assert all(name.isascii() and name[len("Answer-") :].strip("_-") for name in found)
    assert not any(name.endswith("-2") for name in found)


@pytest.fixture
def small_server() -> Iterator[ScriptedServer]:
    """A server whose sessions take three calls."""
    with scripted_server(max_graph_nodes=3) as server:
        yield server


def provider_of(server: ScriptedServer, **extra: Any) -> ParrotLLM:
    config = LLMConfig(
        api_type=LLMType.OPENAI,
        base_url=f"{server.url}/v1",
        api_key="none",
        model="default",
        max_token=40,
        calc_usage=False,
    )
    made: ParrotLLM = type("Extra", (ParrotLLM,), {"extra": extra})(config)
    return made


@pytest.mark.parametrize("stream", [False, True])
async def test_full_sessions_are_kept_and_closed(
    small_server: ScriptedServer, stream: bool
) -> None:
    llm = provider_of(small_server)
    with watch_runs() as runs:
        async with new_run() as run:
            run.begin_with(IDEA)
            for number in range(8):
                await llm.aask(f"{number}: {IDEA}", stream=stream)
    assert run.num_calls == 8
    assert [len(view.nodes) for view in runs[0].views] == [3, 3, 2]
    assert all("idea" in node.inputs for view in runs[0].views for node in view.nodes)
    small_server.wait_until_empty()


async def test_a_run_that_nobody_watches_closes_full_sessions_too(
    small_server: ScriptedServer,
) -> None:
    llm = provider_of(small_server)
    async with new_run() as run:
        await asyncio.gather(*(llm.aask(f"{number}: {IDEA}") for number in range(8)))
    assert (run.num_calls, run.views) == (8, [])
    small_server.wait_until_empty()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_starts_anew_in_the_middle_of_a_call(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    with ExitStack() as first, ExitStack() as second:
        server = first.enter_context(scripted_server(ScriptedConfig(token_s=0.02)))
        port = int(server.url.rpartition(":")[2])
        began: list[ScriptedServer] = []

        async def until_it_is_back(_pause_s: float) -> None:
            if not began:
                began.append(
                    await asyncio.to_thread(second.enter_context, scripted_server(port=port))
                )

        monkeypatch.setattr(OpenAILLM.acompletion_text.retry, "sleep", until_it_is_back)
        slow, quick = provider_of(server, min_tokens=40, ignore_eos=True), provider_of(server)
        async with new_run() as run:
            run.begin_with(IDEA)
            said = await quick.aask("one", stream=stream)
            task = asyncio.ensure_future(slow.aask(f"two {said}", stream=stream))
            while not server.service.coordinator.num_unfinished_calls:
                await asyncio.sleep(0)
            await asyncio.to_thread(first.close)
            assert await task
            assert await quick.aask(f"three {said}", stream=stream)
        assert (run.num_calls, run.num_failed) == (3, 0)
        began[0].wait_until_empty()
