"""CrewAI's crews through OpenAI's API of a Parrot server."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crewai import LLM, Agent, Crew, Task
from crewai.agents.agent_builder.base_agent import BaseAgent
from crewai.crews.crew_output import CrewOutput
from crewai.tools import tool
from crewai.types.streaming import CrewStreamingOutput

from parrot_backend.models import TINY_MODEL_NAME
from tests.helpers.documents import run_snippet, snippet
from tests.helpers.scripted_server import ScriptedServer
from tests.integrations.agents.arrivals import CHAT, Arrivals

pytestmark = [
    pytest.mark.e2e,
    # It leaves its clients to the garbage collector, and uses what others have deprecated.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ROLES = ("architect", "coder", "reviewer")


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let it write what it writes into an empty folder, and collect what it leaves open."""
    for name in ("HOME", "XDG_DATA_HOME", "CREWAI_STORAGE_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield
    gc.collect()


def model(url: str, name: str = "scripted", **options: Any) -> LLM:
    return LLM(model=f"openai/{name}", base_url=f"{url}/v1", api_key="none", **options)


def whole_output(crew: Crew) -> CrewOutput:
    result = crew.kickoff()
    assert isinstance(result, CrewOutput)
    return result


def agent(role: str, llm: LLM, **options: Any) -> Agent:
    return Agent(role=role, goal="Good work.", backstory=f"The {role}.", llm=llm, **options)


def task(agent: BaseAgent, what: str, **options: Any) -> Task:
    return Task(description=what, expected_output="Text.", agent=agent, **options)


def chain(llm: LLM, **options: Any) -> Crew:
    agents: list[BaseAgent] = [agent(role, llm) for role in ROLES]
    tasks = [task(each, f"Do what the {each.role} does.") for each in agents]
    return Crew(agents=agents, tasks=tasks, **options)


def test_each_task_reads_the_one_before(server: ScriptedServer, arrivals: Arrivals) -> None:
    result = whole_output(chain(model(server.url)))
    texts = [output.raw for output in result.tasks_output]
    prompts = arrivals.prompts()
    assert server.count("POST", CHAT) == len(prompts) == len(texts) == 3
    assert result.raw == texts[-1]
    for i, (role, prompt) in enumerate(zip(ROLES, prompts, strict=True)):
        assert f"Do what the {role} does." in prompt
        assert [text in prompt for text in texts] == [j < i for j in range(3)]


def test_a_stream_says_the_same(server: ScriptedServer) -> None:
    whole = whole_output(chain(model(server.url)))
    stream = chain(model(server.url), stream=True).kickoff()
    assert isinstance(stream, CrewStreamingOutput)
    pieces = [chunk.content for chunk in stream]
    texts = [output.raw for output in whole.tasks_output]
    assert "".join(pieces) == "".join(texts)
    assert len(pieces) > 15


def test_tasks_side_by_side(server: ScriptedServer, arrivals: Arrivals) -> None:
    llm = model(server.url)
    # One agent does one task at a time.
    poets: list[BaseAgent] = [agent(f"poet {i}", llm) for i in range(3)]
    critic: BaseAgent = agent("critic", llm)
    ideas = [task(poet, f"An idea of {poet.role}.", async_execution=True) for poet in poets]
    best = task(critic, "Choose the best.", context=list(ideas))
    result = whole_output(Crew(agents=[*poets, critic], tasks=[*ideas, best]))
    *replies, _ = [output.raw for output in result.tasks_output]
    prompts = arrivals.prompts()
    assert len(prompts) == 4
    assert all(reply in prompts[-1] for reply in replies)


def test_a_tool_is_called_and_its_answer_read(server: ScriptedServer, arrivals: Arrivals) -> None:
    sums = []

    @tool("add")
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        sums.append(a + b)
        return a + b

    calculator = agent("calculator", model(server.url), tools=[add])
    todo = task(calculator, "please add(1, 2)")
    result = whole_output(Crew(agents=[calculator], tasks=[todo]))
    assert result.raw
    assert sums
    assert f"]{sums[0]}" in arrivals.prompts()[1]


def test_labels(server: ScriptedServer, arrivals: Arrivals) -> None:
    headers = {"x-parrot-session": "run-1", "x-parrot-stage": "ideas"}
    chain(model(server.url, default_headers=headers)).kickoff()
    found = [(call.labels["session"], call.stage) for call in arrivals.calls()]
    assert found == [("run-1", "ideas")] * 3


@pytest.mark.vllm
@pytest.mark.timeout(300)
def test_on_vllm(vllm_url: str) -> None:
    llm = model(vllm_url, TINY_MODEL_NAME, temperature=0, max_tokens=12)
    result = whole_output(chain(llm))
    assert len(result.tasks_output) == 3
    assert result.token_usage.completion_tokens > 0


def test_the_documented_snippet(documented_server: ScriptedServer) -> None:
    code = snippet("docs/agents.md", "from crewai import")
    assert run_snippet(code, documented_server.url).strip()
    assert documented_server.count("POST", CHAT)
