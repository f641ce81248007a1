"""The front end against the real server with a scripted engine, over a real connection."""

from __future__ import annotations

import asyncio
import runpy
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

import parrot_integrations as P
from parrot_backend.engines.scripted import ScriptedConfig, ScriptedEngine
from parrot_backend.server.app import create_app
from parrot_backend.server.config import ServerSettings
from parrot_backend.server.supervisor import EngineSlot

pytestmark = pytest.mark.e2e

QUICKSTART = Path(__file__).parents[3] / "examples/quickstart.py"
SHORT = P.Sampling(max_tokens=4, temperature=0)
#: Slow enough to act while it is generated.
LONG = P.Sampling(max_tokens=140, min_tokens=140, temperature=0)


@P.SemanticFunction(sampling=SHORT)
def Ask(question: P.SemanticVariable):
    """Q: {{input:question}} A: {{output:answer}}"""


@P.SemanticFunction(sampling=LONG)
def Tell(topic: P.SemanticVariable):
    """A long story about {{input:topic}}: {{output:story}}"""


@P.SemanticFunction(sampling=SHORT, system="Be kind.")
def Joke(topic: P.SemanticVariable):
    """A joke about {{input:topic}}: {{output:joke}} Why is it funny? {{output:why}}"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    config = ScriptedConfig(token_s=0.005)
    slots = [EngineSlot("scripted-0", lambda engine_id: ScriptedEngine(engine_id, config))]
    settings = ServerSettings(drain_timeout_s=0, max_wait_s=0.5)
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings, slots), log_config=None, timeout_graceful_shutdown=2)
    )
    sock = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    sock.close()


@pytest.fixture
def program(url: str) -> Iterator[P.Program]:
    with P.ParrotClient(url) as client, P.program(client=client, app="test") as program:
        yield program


def test_the_quickstart(program: P.Program) -> None:
    code, test = runpy.run_path(str(QUICKSTART))["WriteSnakeGame"]()
    assert code
    assert test


def test_the_server_sees_one_session_with_the_whole_graph(url: str, program: P.Program) -> None:
    Ask(Ask("why")).get()
    assert program.session_id is not None
    with P.ParrotClient(url) as client:
        view = client.get_session(program.session_id)
    assert (view.app, len(view.nodes)) == ("test", 2)


def test_a_chat_with_two_outputs(program: P.Program) -> None:
    joke = Joke("cats")
    assert all(P.get_all(joke))


def test_the_pieces_of_a_stream_make_the_value(program: P.Program) -> None:
    story = Tell("cats")
    pieces = list(story.stream())
    assert len(pieces) > 10
    assert "".join(pieces) == story.get()


def test_a_stream_that_is_joined_late_starts_from_the_beginning(program: P.Program) -> None:
    story, answer = Tell("cats"), Ask("why")
    answer.get(perf=P.THROUGHPUT)
    assert "".join(story.stream(perf=P.LATENCY)) == story.get()


def test_a_wait_longer_than_the_server_allows_goes_on(program: P.Program) -> None:
    begin_s = time.monotonic()
    Tell("patience").get()
    assert time.monotonic() - begin_s > 0.5


def test_an_external_is_set_while_the_graph_runs(program: P.Program) -> None:
    late = P.SemanticVariable()
    answer, other = Ask(late), Ask("why")
    other.get()
    late.set("now")
    assert answer.get()


def test_a_cancelled_value_raises_and_takes_its_readers_with_it(program: P.Program) -> None:
    story, other = Tell("cats"), Ask("why")
    reader = Ask(story)
    other.get()
    story.cancel()
    with pytest.raises(P.ValueCancelled) as caught:
        reader.get()
    assert caught.value.path == ("Tell-story", "Ask-answer-2")


def test_a_failed_transform_tells_why(program: P.Program) -> None:
    with pytest.raises(P.ValueFailed, match="transform_failed"):
        Ask("why").json("no.such.field").get()


def test_an_unknown_model_is_refused(program: P.Program) -> None:
    ask = P.SemanticFunction(model="nobody")(Ask.__wrapped__)
    with pytest.raises(P.RequestRejected, match="unknown_model"):
        ask("why").get()


def test_leaving_the_scope_forgets_the_session(url: str) -> None:
    with P.ParrotClient(url) as client:
        with P.program(client=client) as program:
            Ask("why").get()
        assert program.session_id is not None
        with pytest.raises(P.RequestRejected, match="unknown_session"):
            client.get_session(program.session_id)


async def test_an_async_program(url: str) -> None:
    async with P.AsyncParrotClient(url) as client, P.program(client=client):
        answers = [Ask(f"why {number}") for number in range(50)]
        values = await asyncio.gather(*(answer.aget() for answer in answers))
    assert all(values)


async def test_the_client_talks_to_the_application_without_a_network() -> None:
    slots = [EngineSlot("scripted-0", ScriptedEngine)]
    app = create_app(ServerSettings(), slots)
    async with app.router.lifespan_context(app):
        await app.state.service.supervisor.joined()
        client = P.AsyncParrotClient("http://parrot", transport=httpx.ASGITransport(app))
        async with client, P.program(client=client):
            assert await Ask("why").aget()
