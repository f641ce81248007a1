import json

import httpx
import pytest

from parrot_backend.demo.call_by_call import OpenAICaller
from parrot_backend.demo.programs import MapReduceSummary, SnakeGame, fixed_length
from parrot_backend.demo.records import Mode, PhaseKind
from parrot_backend.demo.transport import DelayingTransport

ROUND_TRIP_S = 0.05


class FakeVllm:
    """Answers ``/v1/completions`` as vLLM does, at once."""

    def __init__(self):
        self.bodies = []

    def handle(self, request):
        assert request.url.path == "/v1/completions"
        self.bodies.append(json.loads(request.content))
        return httpx.Response(
            200,
            json={
                "id": "cmpl-1",
                "choices": [{"index": 0, "text": f" answer {len(self.bodies)}"}],
                "usage": {
                    "prompt_tokens": 100,
                    "completion_tokens": 8,
                    "prompt_tokens_details": {"cached_tokens": 32},
                },
                "metrics": {
                    "queue_time_ms": 1.0,
                    "time_to_first_token_ms": 2.0,
                    "generation_time_ms": 4.0,
                    "mean_itl_ms": 0.5,
                },
            },
        )


@pytest.fixture
def vllm():
    return FakeVllm()


@pytest.fixture
async def caller(vllm):
    transport = DelayingTransport(ROUND_TRIP_S, httpx.MockTransport(vllm.handle))
    caller = OpenAICaller("http://vllm", "tiny", transport)
    yield caller
    await caller.aclose()


async def test_each_call_is_a_round_trip_with_the_programs_sampling(vllm, caller):
    run = await caller.run(SnakeGame(fixed_length(8)))
    assert run.mode is Mode.CALL_BY_CALL
    assert run.round_trips == 2
    assert run.e2e_s >= 2 * ROUND_TRIP_S
    assert run.text == " answer 2"
    for body in vllm.bodies:
        del body["prompt"]
        assert body == {"model": "tiny", "max_tokens": 8, "temperature": 0, "ignore_eos": True}


async def test_calls_have_the_engines_times_and_tokens(caller):
    run = await caller.run(SnakeGame(fixed_length(8)))
    first = run.calls[0]
    assert first.name == "WritePythonCode"
    assert first.engine_s == pytest.approx(0.007)
    assert (first.prompt_tokens, first.cached_tokens, first.completion_tokens) == (100, 32, 8)
    assert [phase.kind for phase in first.phases] == [
        PhaseKind.REQUEST_TRAVELS,
        PhaseKind.QUEUE,
        PhaseKind.PREFILL,
        PhaseKind.DECODE,
        PhaseKind.REPLY_TRAVELS,
    ]
    assert first.phases[0].end_s - first.phases[0].begin_s == pytest.approx(ROUND_TRIP_S / 2)


async def test_map_calls_travel_side_by_side_and_are_recorded_in_order(caller):
    run = await caller.run(MapReduceSummary(["a", "b", "c"], fixed_length(8)))
    assert [call.name for call in run.calls] == ["part 1", "part 2", "part 3", "whole"]
    assert run.round_trips == 4
    assert run.e2e_s < 3 * ROUND_TRIP_S


async def test_a_client_may_limit_its_calls_at_once(vllm):
    transport = DelayingTransport(ROUND_TRIP_S, httpx.MockTransport(vllm.handle))
    caller = OpenAICaller("http://vllm", "tiny", transport, max_concurrent=1)
    run = await caller.run(MapReduceSummary(["a", "b", "c"], fixed_length(8)))
    await caller.aclose()
    assert run.e2e_s >= 4 * ROUND_TRIP_S


async def test_a_call_that_fails_fails_the_run():
    transport = DelayingTransport(0.0, httpx.MockTransport(lambda _: httpx.Response(500)))
    caller = OpenAICaller("http://vllm", "tiny", transport)
    with pytest.raises(httpx.HTTPStatusError):
        await caller.run(SnakeGame(fixed_length(8)))
    await caller.aclose()
