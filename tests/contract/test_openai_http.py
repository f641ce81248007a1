"""The engine behind HTTP, against a server in this process: the contract, and every fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from parrot_backend.core.ids import EngineId
from parrot_backend.engines.base import EngineDied
from parrot_backend.engines.openai_http import OpenAIConfig, OpenAIEngine
from parrot_backend.errors import EngineError
from tests.contract.driver import PATIENCE_S, EngineDriver, constant, open_driver, role, value
from tests.contract.engine_contract import LONG, EngineContract
from tests.helpers.fake_openai import FakeOpenAI
from tests.helpers.streaming_asgi import StreamingASGITransport


def make(server: FakeOpenAI, **config: Any) -> OpenAIEngine:
    return OpenAIEngine(
        EngineId("remote"),
        OpenAIConfig(**{"base_url": "http://fake/v1", **config}),
        StreamingASGITransport(server.app),
    )


@pytest.fixture
def server() -> FakeOpenAI:
    return FakeOpenAI()


@pytest.fixture
async def driver(server: FakeOpenAI) -> AsyncIterator[EngineDriver]:
    driver = await open_driver(make(server))
    yield driver
    await driver.close()


class TestContract(EngineContract):
    tells_time = False
    talks_always = True

    @pytest.fixture
    async def driver(self) -> AsyncIterator[EngineDriver]:
        driver = await open_driver(self.create())
        yield driver
        await driver.close()

    def create(self) -> OpenAIEngine:
        return make(FakeOpenAI())


class TestOpen:
    async def test_models_and_length_come_from_the_server(self, driver: EngineDriver):
        assert driver.info.models == ("fake-model", "other-model")
        assert driver.info.max_model_len == 1_000

    async def test_a_length_that_is_not_listed_is_the_configured_one(self):
        engine = make(FakeOpenAI(lists_max_model_len=False), max_model_len=77)
        info = await engine.open()
        await engine.close()
        assert info.max_model_len == 77

    async def test_the_configured_model_comes_first(self, server: FakeOpenAI):
        driver = await open_driver(make(server, model="other-model"))
        await driver.run("hello")
        await driver.close()
        assert driver.info.models == ("other-model", "fake-model")
        assert server.bodies[-1]["model"] == "other-model"

    @pytest.mark.parametrize(
        ("server", "config", "problem"),
        [
            (FakeOpenAI(), {"model": "absent"}, "does not serve 'absent'"),
            (FakeOpenAI(models=()), {}, "lists none"),
            (FakeOpenAI(is_down=True), {}, "connection lost"),
            (FakeOpenAI(), {"base_url": "http://fake/v2"}, "404"),
        ],
    )
    async def test_failures(self, server: FakeOpenAI, config: dict[str, Any], problem: str):
        engine = make(server, **config)
        with pytest.raises(EngineError, match=problem) as caught:
            await engine.open()
        await engine.close()
        assert caught.value.code == "engine_start_failed"


class TestBodies:
    async def test_a_raw_prompt(self, driver: EngineDriver, server: FakeOpenAI):
        await driver.run((constant("Write "), value("code")), max_tokens=3)
        assert server.bodies == [
            {
                "model": "fake-model",
                "prompt": "Write code",
                "max_tokens": 3,
                "temperature": 0.0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ]

    async def test_a_chat(self, driver: EngineDriver, server: FakeOpenAI):
        await driver.run((role("system"), constant("S"), role("user"), constant("U "), value("v")))
        body = server.bodies[-1]
        assert body["messages"] == [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "U v"},
        ]
        assert "continue_final_message" not in body
        assert "prompt" not in body

    async def test_an_open_assistant_message_is_left_to_the_server(self, driver, server):
        await driver.run((role("user"), constant("U"), role("assistant")))
        assert server.bodies[-1]["messages"] == [{"role": "user", "content": "U"}]

    async def test_a_begun_assistant_message_is_continued(self, driver, server):
        await driver.run((role("user"), constant("U"), role("assistant"), value("So")))
        body = server.bodies[-1]
        assert body["messages"][-1] == {"role": "assistant", "content": "So"}
        assert body["continue_final_message"] is True
        assert body["add_generation_prompt"] is False

    async def test_sampling_that_differs_from_the_default_is_sent(self, driver, server):
        sampling: dict[str, Any] = {
            "max_tokens": 4,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "min_p": 0.1,
            "seed": 3,
            "stop": ("\n",),
            "min_tokens": 2,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "repetition_penalty": 1.1,
            "ignore_eos": True,
        }
        await driver.run("hello", **sampling)
        sent = {name: server.bodies[-1].get(name) for name in sampling}
        assert sent == {**sampling, "stop": ["\n"]}

    async def test_the_salt_is_sent_where_the_server_takes_it(self, driver, server):
        await driver.run("hello", cache_salt="tenant")
        other = await open_driver(make(server, sends_cache_salt=False))
        await other.run("hello", cache_salt="tenant")
        await other.close()
        assert [body.get("cache_salt") for body in server.bodies] == ["tenant", None]

    async def test_cached_tokens_come_from_the_usage(self, driver, server):
        server.cached_tokens = 1
        attempt = await driver.run("hello there")
        assert attempt.finished.usage.cached_tokens == 1


class TestKey:
    async def test_it_is_sent(self, server: FakeOpenAI):
        driver = await open_driver(make(server, api_key="sk-secret"))
        await driver.run("hello")
        await driver.close()
        assert server.headers[-1]["authorization"] == "Bearer sk-secret"

    async def test_it_is_not_told(self, server: FakeOpenAI, caplog: pytest.LogCaptureFixture):
        caplog.set_level("DEBUG")
        server.answer_with = (401, '{"error": {"message": "bad key"}}')
        driver = await open_driver(make(server, api_key="sk-secret"))
        attempt = await driver.run("hello")
        await driver.close()
        config = OpenAIConfig("http://fake/v1", api_key="sk-secret")
        assert "sk-secret" not in f"{config!r} {attempt.failed} {caplog.text}"
        assert attempt.failed.code == "engine_rejected"


def _error_body(message: str, code: str | None = None) -> str:
    return f'{{"error": {{"message": "{message}", "code": "{code}"}}}}'


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "body", "code", "is_retryable"),
        [
            (400, _error_body("bad field"), "engine_rejected", False),
            (400, _error_body("x", "context_length_exceeded"), "prompt_too_long", False),
            (400, _error_body("maximum context length is 8"), "prompt_too_long", False),
            (404, _error_body("model gone"), "unknown_model", False),
            (404, "not found", "engine_rejected", False),
            (422, '{"message": "old form"}', "engine_rejected", False),
            (403, '{"error": "plain"}', "engine_rejected", False),
            (429, _error_body("slow down"), "engine_failed", True),
            (500, "", "engine_failed", True),
            (503, "[1]", "engine_failed", True),
        ],
    )
    async def test_statuses(self, driver, server, status, body, code, is_retryable):
        server.answer_with = (status, body)
        attempt = await driver.run("hello")
        assert attempt.failed.code == code
        assert attempt.failed.is_retryable == is_retryable
        assert str(status) in attempt.failed.message

    @pytest.mark.parametrize(
        "fault",
        [{"cut_after": 3}, {"error_after": 3}, {"ends_early": True}, {"is_down": True}],
    )
    async def test_a_broken_reply_can_be_tried_again(self, driver, server, fault):
        for name, setting in fault.items():
            setattr(server, name, setting)
        attempt = await driver.run("hello", ignore_eos=True)
        assert attempt.failed.code == "engine_failed"
        assert attempt.failed.is_retryable
        pieces = 3 if {"cut_after", "error_after"} & set(fault) else 12 * ("ends_early" in fault)
        assert len(attempt.outputs) == pieces + 1

    async def test_a_reply_that_is_no_stream_is_a_failure(self, server: FakeOpenAI):
        server.answer_with = (200, "not a stream")
        driver = await open_driver(make(server))
        attempt = await driver.run("hello")
        await driver.close()
        assert attempt.failed.is_retryable

    async def test_output_is_cut_where_the_server_refuses_too_much(self, driver, server):
        server.clamps_output = False
        attempt = await driver.run("word " * 990, max_tokens=500, ignore_eos=True)
        assert attempt.finished.usage.completion_tokens == 10
        assert [body["max_tokens"] for body in server.bodies] == [500, 10]

    async def test_a_prompt_that_fills_the_context_is_tried_once(self, driver, server):
        server.clamps_output = False
        attempt = await driver.run("word " * 1_000)
        assert attempt.failed.code == "prompt_too_long"
        assert len(server.bodies) == 1


async def test_an_abort_reaches_the_server(driver: EngineDriver, server: FakeOpenAI):
    attempt = driver.start("go on", **LONG)
    await driver.first_output(attempt)
    driver.engine.abort(attempt.id)
    await asyncio.sleep(0.05)
    assert server.num_left == 1


class TestHealth:
    async def test_a_server_that_stays_away_is_dead(self, server: FakeOpenAI):
        driver = await open_driver(make(server, probe_interval_s=0.01))
        server.is_down = True
        error = await driver.ended()
        await driver.engine.close()
        assert isinstance(error, EngineDied)
        assert "http://fake/v1 does not answer" in str(error)

    async def test_a_server_that_misses_a_probe_now_and_then_is_not(self, server: FakeOpenAI):
        driver = await open_driver(make(server, probe_interval_s=0.01))
        server.probe_faults = [True, True, False, True, True, False]
        async with asyncio.timeout(PATIENCE_S):
            while server.probe_faults:
                await asyncio.sleep(0.01)
        assert driver.end is None
        assert (await driver.run("still there?")).finished.text
        await driver.close()


class QuietServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class TestSockets:
    """What only real connections show: timeouts, and a server that goes away."""

    @pytest.fixture
    async def url(self, server: FakeOpenAI) -> AsyncIterator[str]:
        http = QuietServer(
            uvicorn.Config(
                server.app, port=0, log_level="critical", lifespan="off", interface="asgi3"
            )
        )
        serving = asyncio.create_task(http.serve())
        while not http.started:
            await asyncio.sleep(0.01)
        port = http.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
        http.should_exit = http.force_exit = True
        await serving

    async def test_a_request_runs(self, url: str):
        driver = await open_driver(OpenAIEngine(EngineId("remote"), OpenAIConfig(url)))
        attempt = await driver.run("over a socket")
        await driver.close()
        assert attempt.finished.text

    async def test_silence_is_a_failure(self, url: str, server: FakeOpenAI):
        config = OpenAIConfig(url, silence_timeout_s=0.2)
        driver = await open_driver(OpenAIEngine(EngineId("remote"), config))
        server.token_s = 60.0
        attempt = await driver.run("are you there?")
        await driver.close()
        assert attempt.failed.is_retryable
        assert "ReadTimeout" in attempt.failed.message

    async def test_nobody_there(self):
        engine = OpenAIEngine(EngineId("remote"), OpenAIConfig("http://127.0.0.1:9/v1"))
        with pytest.raises(EngineError, match="ConnectError"):
            await engine.open()
        await engine.close()
