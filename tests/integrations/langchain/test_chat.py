"""``ChatParrot`` on a fake server: what is sent, and what comes back."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import ContextOverflowError, ModelRateLimitError
from langchain_core.load import dumps
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField

import parrot_integrations as P
from parrot_backend.protocol import CallNode, ToolCall, Usage
from parrot_integrations.langchain import ChatParrot
from tests.helpers.fake_parrot import FakeParrot
from tests.helpers.fake_replies import error_reply


def last_node(fake: FakeParrot) -> CallNode:
    (node,) = fake.submits[-1].nodes
    assert isinstance(node, CallNode)
    return node


def test_a_call_is_one_submit_that_ends_with_its_client(chat: ChatParrot, fake: FakeParrot) -> None:
    assert chat.invoke("why").content == "<why>"
    (submit,) = fake.submits
    assert (submit.close, submit.on_disconnect, submit.stream) == (True, "cancel", False)
    assert submit.outputs[0].criteria == P.UNSTATED
    assert fake.log == ["POST /v1/submit"]


def test_the_parameters_of_model_binding_and_call_are_sent(
    client: P.ParrotClient, fake: FakeParrot
) -> None:
    chat = ChatParrot(
        client=client,
        model="m",
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        min_p=0.1,
        seed=3,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        max_tokens=9,
        chat_template_kwargs={"enable_thinking": False},
    )
    chat.bind(top_k=5, stop=["."]).invoke("why", seed=4)
    node = last_node(fake)
    assert node.model == "m"
    assert node.chat_template_kwargs == {"enable_thinking": False}
    assert node.sampling == P.Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        seed=4,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        max_tokens=9,
        stop=(".",),
    )


def test_a_stream_gives_text_then_everything_else(chat: ChatParrot, fake: FakeParrot) -> None:
    call = ToolCall(id="c", name="add", arguments='{"a": 1}')
    usage = Usage(prompt_tokens=3, completion_tokens=4, cached_tokens=2)
    fake.details = lambda _: {"reasoning": "h m", "tool_calls": (call,), "usage": usage}
    chunks = list(chat.stream("a b"))
    assert [c.content for c in chunks] == ["", "", "<a", " b>", ""]
    assert [c.additional_kwargs.get("reasoning_content") for c in chunks[:2]] == ["h", " m"]
    assert [c.usage_metadata for c in chunks[:-1]] == [None] * 4
    last = chunks[-1]
    assert isinstance(last, AIMessageChunk)
    assert last.chunk_position == "last"
    assert last.usage_metadata is not None
    assert last.usage_metadata["input_token_details"] == {"cache_read": 2}
    assert last.tool_call_chunks[0]["args"] == '{"a": 1}'


async def test_the_async_methods_do_the_same(chat: ChatParrot, fake: FakeParrot) -> None:
    assert (await chat.ainvoke("why")).content == "<why>"
    assert [c.content async for c in chat.astream("a b")] == ["<a", " b>", ""]
    assert [m.content for m in await chat.abatch(["a", "b"])] == ["<a>", "<b>"]
    assert len(fake.submits) == 3


def test_several_replies_are_one_submit(chat: ChatParrot, fake: FakeParrot) -> None:
    chat = chat.model_copy(update={"n": 2, "seed": 5})
    result = chat.generate([[HumanMessage("why")]])
    assert [g.text for g in result.generations[0]] == ["<why>", "<why>"]
    nodes = fake.submits[0].nodes
    assert [n.sampling.seed for n in nodes if isinstance(n, CallNode)] == [5, 6]
    with pytest.raises(ValueError, match="n must be 1 to stream"):
        list(chat.stream("why"))


def test_a_batch_is_one_submit_for_throughput(chat: ChatParrot, fake: FakeParrot) -> None:
    replies = chat.batch(["a", "b", "a"])
    assert [reply.content for reply in replies] == ["<a>", "<b>", "<a>"]
    (submit,) = fake.submits
    assert [output.criteria for output in submit.outputs] == [P.THROUGHPUT] * 3


def test_the_inputs_of_a_batch_fail_each_for_itself(chat: ChatParrot, fake: FakeParrot) -> None:
    def generate(prompt: str) -> str:
        if prompt == "b":
            raise ValueError("prompt_too_long")
        return prompt

    fake.generate = generate
    good, long, picture, other = chat.batch(
        ["a", "b", [("human", [{"type": "image", "url": "x"}])], "c"], return_exceptions=True
    )
    assert (good.content, other.content) == ("a", "c")
    assert isinstance(long, ContextOverflowError)
    assert isinstance(long, P.ValueFailed)
    assert isinstance(picture, ValueError)


@pytest.mark.parametrize("config", [{"max_concurrency": 1}, [{"max_concurrency": 1}, {}]])
def test_a_limited_batch_is_sent_call_by_call(
    chat: ChatParrot, fake: FakeParrot, config: Any
) -> None:
    assert len(chat.batch(["a", "b"], config)) == 2
    assert len(fake.submits) == 2
    criteria = [submit.outputs[0].criteria for submit in fake.submits]
    assert criteria == [P.THROUGHPUT] * 2


def test_a_batch_with_a_cache_sends_only_what_the_cache_lacks(
    chat: ChatParrot, fake: FakeParrot
) -> None:
    chat = chat.model_copy(update={"cache": InMemoryCache()})
    chat.invoke("a")
    assert [m.content for m in chat.batch(["a", "b"])] == ["<a>", "<b>"]
    assert len(fake.submits) == 2


def test_a_rate_limiter_is_asked_for_every_call(chat: ChatParrot) -> None:
    limiter = InMemoryRateLimiter(requests_per_second=1000, check_every_n_seconds=0.001)
    asked = []
    acquire = limiter.acquire
    limiter.acquire = lambda **how: asked.append(1) or acquire(**how)  # type: ignore[method-assign,func-returns-value]
    chat = chat.model_copy(update={"rate_limiter": limiter})
    chat.batch(["a", "b"])
    chat.invoke("c")
    assert len(asked) == 3


OUTPUT_PARAMETERS: list[dict[str, Any]] = [
    {"model": "m"},
    {"base_url": "http://other"},
    {"temperature": 0.1},
    {"max_tokens": 5},
    {"top_p": 0.5},
    {"top_k": 5},
    {"min_p": 0.5},
    {"seed": 1},
    {"stop": ["x"]},
    {"min_tokens": 1},
    {"presence_penalty": 0.1},
    {"frequency_penalty": 0.1},
    {"repetition_penalty": 1.5},
    {"ignore_eos": True},
    {"n": 2},
    {"logprobs": True},
    {"top_logprobs": 2},
    {"chat_template_kwargs": {"enable_thinking": True}},
]


@pytest.mark.parametrize("given", OUTPUT_PARAMETERS, ids=lambda given: next(iter(given)))
def test_a_cache_tells_models_with_other_outputs_apart(
    client: P.ParrotClient, fake: FakeParrot, given: dict[str, Any]
) -> None:
    cache = InMemoryCache()
    ChatParrot(client=client, cache=cache).invoke("a")
    ChatParrot(client=client, cache=cache, perf="throughput", app="x", timeout=9).invoke("a")
    assert len(fake.submits) == 1
    ChatParrot(client=client, cache=cache, **given).invoke("a")
    assert len(fake.submits) == 2


def test_fields_are_configurable(chat: ChatParrot, fake: FakeParrot) -> None:
    configurable = chat.configurable_fields(temperature=ConfigurableField(id="heat"))
    configurable.invoke("a", {"configurable": {"heat": 0.25}})
    assert last_node(fake).sampling.temperature == 0.25


def test_misspelled_fields_and_parameters_are_errors(chat: ChatParrot) -> None:
    with pytest.raises(ValueError, match="tempature"):
        ChatParrot(tempature=0)  # type: ignore[call-arg]
    for call in (chat.invoke, lambda *a, **k: list(chat.stream(*a, **k))):
        with pytest.raises(ValueError, match="unknown parameters tempature"):
            call("a", tempature=0)


def test_no_server_is_known() -> None:
    with pytest.raises(P.NotConfigured, match="PARROT_BASE_URL"):
        ChatParrot().invoke("a")
    found: list[Any] = ChatParrot().batch(["a", "b"], return_exceptions=True)
    assert [type(error) for error in found] == [P.NotConfigured] * 2


def test_max_retries_is_how_often_it_is_sent_again() -> None:
    chat = ChatParrot(base_url="http://x", max_retries=4)
    assert chat.connection.settings.max_attempts == 5


def test_a_busy_server_is_a_rate_limit(chat: ChatParrot, fake: FakeParrot) -> None:
    fallback = chat.with_config().with_fallbacks(
        [chat.bind(model="spare")], exceptions_to_handle=(ModelRateLimitError,)
    )
    fake.mishaps = [error_reply(429, "saturated") for _ in range(3)]
    assert fallback.invoke("a").content == "<a>"
    assert last_node(fake).model == "spare"


def test_a_call_that_takes_too_long_is_given_up(chat: ChatParrot, fake: FakeParrot) -> None:
    fake.held.add("reply-0")
    with pytest.raises(P.WaitTimeout, match="given up"):
        chat.invoke("a", timeout=0.02)
    assert fake.count("POST /v1/sessions/s1/cancel") == 1


SECRET = "sk-very-secret"


def test_the_key_is_shown_nowhere(chat: ChatParrot, fake: FakeParrot) -> None:
    chat = ChatParrot(base_url="http://127.0.0.1:9", api_key=SECRET, max_retries=0)  # type: ignore[arg-type]
    with pytest.raises(P.ConnectionFailed) as caught:
        chat.invoke("a")
    shown = [repr(chat), str(chat), dumps(chat), repr(caught.value), str(chat._identifying_params)]
    shown += [repr(chat.connection), repr(chat.bind(stop=["x"])), str(chat.asdict())]
    assert not any(SECRET in text for text in shown)
    assert chat.lc_secrets == {"api_key": "PARROT_API_KEY"}


def test_a_model_is_pickled() -> None:
    chat = ChatParrot(base_url="http://x", api_key=SECRET, temperature=0)  # type: ignore[arg-type]
    copy = pickle.loads(pickle.dumps(chat))
    assert copy == chat
    assert copy.api_key.get_secret_value() == SECRET


def test_a_model_is_shared_between_threads(chat: ChatParrot) -> None:
    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda i: chat.invoke(str(i)).content, range(200)))
    assert texts == [f"<{i}>" for i in range(200)]


async def test_many_calls_at_once_in_one_loop(chat: ChatParrot) -> None:
    replies = await asyncio.gather(*(chat.ainvoke(str(i)) for i in range(100)))
    assert [reply.content for reply in replies] == [f"<{i}>" for i in range(100)]


def test_what_a_model_says_of_itself(chat: ChatParrot) -> None:
    assert chat._llm_type == "parrot-chat"
    assert chat.profile is not None
    assert chat.profile["tool_calling"]
    params = chat._get_ls_params(stop=["x"], model="m")
    assert (params["ls_provider"], params["ls_model_name"]) == ("parrot", "m")
    assert not ChatParrot.is_lc_serializable()
