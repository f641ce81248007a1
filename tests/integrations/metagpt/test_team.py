"""The team of the example on a real server with a scripted engine, with MetaGPT's own package."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator

import pytest
from metagpt.config2 import Config
from metagpt.configs.llm_config import LLMType
from metagpt.provider.llm_provider_registry import LLM_REGISTRY
from metagpt.provider.openai_api import OpenAILLM
from metagpt.roles.role import Role

from examples.metagpt.recording import RunNotes, begin_notes, record
from examples.metagpt.team import name_of, write_project
from parrot_backend.engines.scripted import ScriptedConfig
from parrot_backend.protocol import CallNode, SubmitRequest, TextSegment
from parrot_integrations import AsyncParrotClient
from parrot_integrations.metagpt import TeamRun, install, watch_runs
from tests.helpers.scripted_server import ScriptedServer, scripted_server

pytestmark = pytest.mark.e2e

#: Longer replies than the engine's own, as code is.
LONG = {"min_tokens": 200}


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server(ScriptedConfig(max_model_len=100_000)) as server:
        yield server


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[SubmitRequest]:
    """What the provider submits."""
    requests: list[SubmitRequest] = []
    submit = AsyncParrotClient.submit

    async def noting(self: AsyncParrotClient, request: SubmitRequest) -> object:
        requests.append(request)
        return await submit(self, request)

    monkeypatch.setattr(AsyncParrotClient, "submit", noting)
    return requests


def config_of(server: ScriptedServer, stream: bool = False) -> Config:
    return Config.from_llm_config(
        {
            "api_type": "openai",
            "base_url": f"{server.url}/v1",
            "api_key": "none",
            "model": "scripted",
            "max_token": 400,
            "calc_usage": False,
            "stream": stream,
        }
    )


class Ran:
    """What came of a run of the team."""

    def __init__(self, files: dict[str, str], notes: RunNotes, run: TeamRun | None) -> None:
        self.files = files
        self.run = run
        self.names = [call.name for call in notes.calls]
        self.prompts = {call.name: call.prompt for call in notes.calls}
        self.replies = {call.name: call.reply for call in notes.calls}

    @property
    def edges(self) -> list[tuple[str, str]]:
        assert self.run is not None
        (view,) = self.run.views
        made = {node.output for node in view.nodes}
        return [(name, node.output) for node in view.nodes for name in node.inputs if name in made]


def run_team(
    monkeypatch: pytest.MonkeyPatch, server: ScriptedServer, num_files: int, stream: bool = False
) -> Ran:
    """Run it with the provider that is registered, and note its calls."""
    provider = LLM_REGISTRY.get_provider(LLMType.OPENAI)

    async def run() -> Ran:
        notes = begin_notes()
        with watch_runs() as runs:
            files = await write_project(config_of(server, stream), num_files)
        return Ran(files, notes, runs[0] if runs else None)

    with monkeypatch.context() as patch:
        patch.setattr(provider, "acompletion_text", provider.acompletion_text)
        patch.setattr(OpenAILLM, "_update_costs", OpenAILLM._update_costs)
        patch.setattr(Role, "run", Role.run)
        record(provider)
        return asyncio.run(run())


@pytest.fixture
def with_parrot(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    uninstall = install(extra=LONG)
    yield
    uninstall()


@pytest.mark.usefixtures("with_parrot")
@pytest.mark.parametrize(("num_files", "num_calls", "num_edges"), [(4, 29, 136), (2, 15, 44)])
def test_the_server_sees_the_program(
    monkeypatch: pytest.MonkeyPatch,
    server: ScriptedServer,
    sent: list[SubmitRequest],
    num_files: int,
    num_calls: int,
    num_edges: int,
) -> None:
    ran = run_team(monkeypatch, server, num_files)
    assert ran.run is not None
    assert (ran.run.num_calls, ran.run.num_failed) == (num_calls, 0)
    (view,) = ran.run.views
    assert view.app == "metagpt"
    assert len(view.nodes) == num_calls
    assert len(ran.edges) == len(set(ran.edges)) == num_edges
    # One more submit opens the session with the idea, which all calls read.
    assert len(sent) == num_calls + 1
    assert all("idea" in node.inputs for node in view.nodes)
    assert not [s for s in server.service.coordinator.sessions if not s.is_closed]
    assert expected_edges(num_files) == set(ran.edges)


def expected_edges(num_files: int) -> set[tuple[str, str]]:
    """Return who reads whom, by what the roles of the team do."""
    numbers, found = range(num_files), set()
    design, codes = "Outline-Alice", [f"WriteCode-Coder{i}" for i in range(num_files)]
    found |= {(design, code) for code in codes}
    for number in range(1, 4):
        suffix = "" if number == 1 else f"-{number}"
        reviews = [f"Review-Reviewer{i}{suffix}" for i in numbers]
        revised = [f"Revise-Coder{i}{suffix}" for i in numbers]
        found |= {(source, review) for review in reviews for source in [design, *codes]}
        found |= {(source, new) for new in revised for source in [design, *codes]}
        found |= set(zip(reviews, revised, strict=True))
        codes = revised
    return found


# MetaGPT closes none of OpenAI's clients.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_texts_and_prompts_are_those_of_plain_metagpt(
    monkeypatch: pytest.MonkeyPatch, server: ScriptedServer
) -> None:
    original = OpenAILLM._cons_kwargs
    with monkeypatch.context() as patch:
        patch.setattr(
            OpenAILLM,
            "_cons_kwargs",
            lambda *args, **kwargs: {**original(*args, **kwargs), "extra_body": LONG},
        )
        plain = run_team(monkeypatch, server, 4)
        gc.collect()
    uninstall = install(extra=LONG)
    ours = run_team(monkeypatch, server, 4)
    streamed = run_team(monkeypatch, server, 4, stream=True)
    uninstall()
    assert plain.run is None
    assert len(plain.prompts) == 29
    for other in (ours, streamed):
        assert other.prompts == plain.prompts
        assert other.replies == plain.replies
        assert other.files == plain.files
    assert sorted(plain.files) == [name_of(i) for i in range(4)]
    assert set(streamed.edges) == set(ours.edges) == expected_edges(4)


@pytest.mark.usefixtures("with_parrot")
def test_nearly_all_of_the_prompts_is_accounted_for(
    monkeypatch: pytest.MonkeyPatch, server: ScriptedServer, sent: list[SubmitRequest]
) -> None:
    ran = run_team(monkeypatch, server, 4)
    num_chars = sum(map(len, ran.prompts.values()))
    constant = [text for request in sent for text in constants_of(request)]
    # Constant text that several prompts have is shared, too: windows of 32 characters.
    windows = Counter(w for text in constant for w in {*windows_of(text)})
    unique = sum(sum(windows[w] == 1 for w in windows_of(text)) for text in constant)
    in_values = 1 - sum(map(len, constant)) / num_chars
    print(f"in values {in_values:.4f}, accounted for {1 - unique / num_chars:.4f}")
    assert in_values > 0.95
    assert 1 - unique / num_chars > 0.99


def constants_of(request: SubmitRequest) -> list[str]:
    contents = [
        message.content
        for node in request.nodes
        if isinstance(node, CallNode)
        for message in node.messages or ()
    ]
    return [part.text for content in contents for part in content if isinstance(part, TextSegment)]


def windows_of(text: str) -> list[str]:
    return [text[i : i + 32] for i in range(max(1, len(text) - 31))]
