"""The official SDK against a real server with the scripted engine: it must notice no difference."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from parrot_backend.engines.scripted import ScriptedConfig
from tests.helpers.scripted_server import ScriptedServer, scripted_server

MODEL = "scripted"
HELLO: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class City(BaseModel):
    name: str
    size: Literal["small", "large"]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server(ScriptedConfig(token_s=0.0005)) as server:
        yield server


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed_and_found(client: openai.OpenAI):
    listed = client.models.list().data

    assert [model.id for model in listed] == [MODEL]
    assert client.models.retrieve(MODEL) == listed[0]
    assert listed[0].created > 1_700_000_000
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/other")


def test_a_stream_says_what_the_whole_reply_says(client: openai.OpenAI):
    whole = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=20)
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    choice = whole.choices[0]
    *told, last = chunks
    assert told[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == choice.message.content
    assert [chunk.choices[0].finish_reason for chunk in told][-1] == choice.finish_reason
    assert len(told) > 5, "the words come one by one"
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.total_tokens == whole.usage.total_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_placeholder_in_a_message_is_text(client: openai.OpenAI, server: ScriptedServer):
    reply = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "{{input:x}} and {{output:y}} {{"}]
    )

    assert reply.choices[0].message.content
    raw = client.completions.create(model=MODEL, prompt="{{input:x}}", echo=True)
    assert raw.choices[0].text.startswith("{{input:x}}")


async def test_many_at_once_with_the_asynchronous_client(server: ScriptedServer):
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:

        async def ask(number: int) -> str:
            chunks = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": f"number {number}"}], stream=True
            )
            texts = [c.choices[0].delta.content or "" async for c in chunks]
            return "".join(texts)

        streamed = await asyncio.gather(*(ask(number) for number in range(20)))
        whole = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "number 7"}]
        )

    assert whole.choices[0].message.content == streamed[7]
    assert len(set(streamed)) == 20


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_tool_is_called_and_its_answer_taken(client: openai.OpenAI, choice: Any):
    question: list[Any] = [{"role": "user", "content": "Is it cold in Bern?"}]
    asked = client.chat.completions.create(
        model=MODEL, messages=question, tools=[WEATHER], tool_choice=choice
    ).choices[0]
    chunks: Any = client.chat.completions.create(
        model=MODEL, messages=question, tools=[WEATHER], tool_choice=choice, stream=True
    )
    deltas = [c.choices[0].delta for c in chunks if c.choices[0].delta.tool_calls]

    assert asked.finish_reason == ("tool_calls" if choice == "required" else "stop")
    assert asked.message.content is None
    assert asked.message.tool_calls is not None
    call: Any = asked.message.tool_calls[0]
    assert call.function.name == "weather"
    assert deltas[0].tool_calls is not None
    streamed = deltas[0].tool_calls[0].function
    assert streamed is not None
    assert (streamed.name, streamed.arguments) == (call.function.name, call.function.arguments)

    answered: list[Any] = [
        *question,
        asked.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"},
    ]
    final = client.chat.completions.create(model=MODEL, messages=answered, tools=[WEATHER])
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content


def test_structured_outputs_are_parsed(client: openai.OpenAI):
    reply = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=City)

    assert isinstance(reply.choices[0].message.parsed, City)


def test_the_sdk_puts_a_stream_together(client: openai.OpenAI):
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, response_format=City, logprobs=True
    ) as stream:
        final = stream.get_final_completion()

    assert isinstance(final.choices[0].message.parsed, City)
    assert final.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content


def test_json_objects_and_vllms_forms(client: openai.OpenAI):
    as_object = client.chat.completions.create(
        model=MODEL, messages=HELLO, response_format={"type": "json_object"}
    )
    chosen = client.chat.completions.create(
        model=MODEL, messages=HELLO, extra_body={"structured_outputs": {"choice": ["yes", "no"]}}
    )

    assert (as_object.choices[0].message.content or "").startswith("{")
    assert chosen.choices[0].message.content in ("yes", "no")


def test_choices_log_probabilities_and_stop(client: openai.OpenAI):
    reply = client.chat.completions.create(
        model=MODEL, messages=HELLO, n=3, seed=7, logprobs=True, top_logprobs=2, max_tokens=4
    )

    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) == 3, "seeds differ"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 12
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(place.token for place in logprobs.content) == reply.choices[0].message.content
    assert [len(place.top_logprobs) for place in logprobs.content] == [2] * 4
    text = client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message.content
    assert text is not None
    word = text.split()[3]
    cut = client.chat.completions.create(model=MODEL, messages=HELLO, stop=word).choices[0]
    assert cut.message.content == text[: text.index(word)]


def test_completions_of_several_prompts(client: openai.OpenAI):
    reply = client.completions.create(
        model=MODEL, prompt=["one", "two"], n=2, seed=1, max_tokens=5, logprobs=2, stop=None
    )
    chunks = client.completions.create(
        model=MODEL, prompt=["one", "two"], n=2, seed=1, max_tokens=5, stream=True
    )
    streamed = ["", "", "", ""]
    for chunk in chunks:
        streamed[chunk.choices[0].index] += chunk.choices[0].text

    assert [choice.text for choice in reply.choices] == streamed
    assert len(set(streamed)) == 4
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == reply.choices[0].text
    assert logprobs.text_offset is not None
    assert logprobs.text_offset[:2] == [0, len((logprobs.tokens or [""])[0])]


def test_the_old_default_of_sixteen_tokens_holds_for_completions_only(client: openai.OpenAI):
    options: Any = {"extra_body": {"ignore_eos": True}, "model": MODEL}
    raw = client.completions.create(prompt="one two", **options)
    chat = client.chat.completions.create(messages=HELLO, max_tokens=300, **options)

    assert raw.usage is not None
    assert raw.usage.completion_tokens == 16
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 300


def test_a_chat_without_a_limit_may_fill_the_context():
    config = ScriptedConfig(max_model_len=600)
    with scripted_server(config) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        reply = client.chat.completions.create(
            model=MODEL, messages=HELLO, extra_body={"ignore_eos": True}
        )

    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.total_tokens == 600


def ask_for_a_tool(client: openai.OpenAI, how: str) -> Any:
    options: Any = {
        "model": MODEL,
        "messages": HELLO,
        "tools": [openai.pydantic_function_tool(City)],
        "tool_choice": "required",
    }
    if how == "create":
        return client.chat.completions.create(**options).choices[0].message
    if how == "parse":
        return client.chat.completions.parse(**options).choices[0].message
    with client.chat.completions.stream(**options) as stream:
        return stream.get_final_completion().choices[0].message


@pytest.mark.parametrize("how", ["create", "parse", "stream"])
def test_messages_with_calls_can_be_sent_back(client: openai.OpenAI, how: str):
    message = ask_for_a_tool(client, how)

    answer = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "4"}
    for said in (message, message.model_dump()):
        messages: list[Any] = [*HELLO, said, answer]
        final = client.chat.completions.create(model=MODEL, messages=messages)
        assert final.choices[0].message.content


# The SDK's own, of a message that holds what it has parsed.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("form", [None, City])
def test_messages_of_parse_and_stream_can_be_sent_back(client: openai.OpenAI, form: Any):
    options: Any = {
        "model": MODEL,
        "messages": HELLO,
        **({"response_format": form} if form else {}),
    }
    with client.chat.completions.stream(**options) as stream:
        streamed = stream.get_final_completion().choices[0].message
    parsed = client.chat.completions.parse(**options).choices[0].message

    for message in (streamed, parsed, parsed.model_dump()):
        messages: list[Any] = [*HELLO, message, HELLO[1]]
        reply = client.chat.completions.create(model=MODEL, messages=messages)
        assert reply.choices[0].message.content


@pytest.mark.parametrize("tools", [False, True])
def test_responses_of_parse_and_stream_can_be_sent_back(client: openai.OpenAI, tools: bool):
    tool: Any = openai.pydantic_function_tool(City)["function"]
    options: Any = {"text_format": City}
    if tools:
        options = {"tools": [{"type": "function", **tool}], "tool_choice": "required"}
    parsed = client.responses.parse(model=MODEL, input=HELLO, **options)
    with client.responses.stream(model=MODEL, input=HELLO, **options) as stream:
        streamed = stream.get_final_response()

    for response in (parsed, streamed):
        said: list[Any] = list(response.output)
        for item in response.output:
            if item.type == "function_call":
                said.append(
                    {"type": "function_call_output", "call_id": item.call_id, "output": "4"}
                )
        final = client.responses.create(model=MODEL, input=[*HELLO, *said, HELLO[1]])
        assert final.output_text


SENT_BACK: dict[str, dict[str, Any]] = {
    "a refusal": {"content": [{"type": "refusal", "refusal": "No."}]},
    "a refusal beside text": {
        "content": [{"type": "text", "text": "Well."}, {"type": "refusal", "refusal": "No."}]
    },
    "thoughts of other servers": {"content": "x", "reasoning_details": [{"type": "x"}]},
}


@pytest.mark.parametrize("case", SENT_BACK)
def test_messages_of_other_servers_can_be_sent_back(client: openai.OpenAI, case: str):
    said: Any = {"role": "assistant", **SENT_BACK[case]}

    reply = client.chat.completions.create(model=MODEL, messages=[*HELLO, said, HELLO[1]])

    assert reply.choices[0].message.content
