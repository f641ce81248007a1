"""The loop of function calls over a real server, whose scripted engine asks for functions.

It calls what a question names with ``(`` after it, and ``required`` calls the first function there
is; its arguments follow the schema.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import reduce
from operator import add
from typing import Annotated, Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    FunctionCallContent,
    FunctionResultContent,
)
from semantic_kernel.contents.utils.finish_reason import FinishReason
from semantic_kernel.exceptions import ServiceInvalidRequestError
from semantic_kernel.filters import AutoFunctionInvocationContext, FilterTypes
from semantic_kernel.functions import KernelArguments, kernel_function

from parrot_backend.core.nodes import Request
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
)
from tests.helpers.scripted_server import ScriptedServer

Behavior = FunctionChoiceBehavior
ROLES = [AuthorRole.USER, AuthorRole.ASSISTANT, AuthorRole.TOOL]


class Sums:
    """A plugin that counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    @kernel_function(description="Add two numbers.")
    def add(self, a: Annotated[int, "one"], b: Annotated[int, "the other"] = 2) -> int:
        self.calls.append((a, b))
        return a + b

    @kernel_function
    def fail(self) -> str:
        raise ValueError("it is broken")


@pytest.fixture
def sums() -> Sums:
    return Sums()


@pytest.fixture
def kernel(server: ScriptedServer, sums: Sums) -> Kernel:
    kernel = Kernel(services=[ParrotChatCompletion(host=server.url)])
    kernel.add_plugin(sums, "sums")
    return kernel


def service(kernel: Kernel) -> ParrotChatCompletion:
    return kernel.get_service(type=ParrotChatCompletion)


def asking(text: str) -> ChatHistory:
    history = ChatHistory()
    history.add_user_message(text)
    return history


def settings(behavior: FunctionChoiceBehavior | None, **more: Any) -> Any:
    return ParrotChatPromptExecutionSettings(
        **{"function_choice_behavior": behavior, "max_tokens": 24, **more}
    )


Ask = Callable[[Kernel, ChatHistory, Any], Awaitable[ChatMessageContent]]


async def whole(kernel: Kernel, history: ChatHistory, wanted: Any) -> ChatMessageContent:
    reply = await service(kernel).get_chat_message_content(history, wanted, kernel=kernel)
    assert reply is not None
    return reply


async def streamed(kernel: Kernel, history: ChatHistory, wanted: Any) -> ChatMessageContent:
    """Return the last message of a stream, which has one for each round and its results."""
    chunks = service(kernel).get_streaming_chat_message_contents(history, wanted, kernel=kernel)
    rounds: dict[Any, list[Any]] = {}
    async for (chunk,) in chunks:
        rounds.setdefault((chunk.function_invoke_attempt, chunk.role), []).append(chunk)
    last: ChatMessageContent = [reduce(add, found) for found in rounds.values()][-1]
    return last


both = pytest.mark.parametrize("ask", [whole, streamed])


def sent(kernel: Kernel, history: ChatHistory, wanted: Any) -> ModelCall:
    (call,), _ = service(kernel).foresee(history, wanted, kernel)
    return call


@both
async def test_auto_calls_a_function_and_goes_on(
    kernel: Kernel, sums: Sums, server: ScriptedServer, ask: Ask
) -> None:
    history = asking("what is sums-add(1, 2)?")
    reply = await ask(kernel, history, settings(Behavior.Auto()))
    assert len(sums.calls) == 1
    assert server.num_submits == 2
    assert [message.role for message in history.messages] == ROLES
    called, result = history.messages[1].items[-1], history.messages[2].items[0]
    assert isinstance(called, FunctionCallContent)
    assert isinstance(result, FunctionResultContent)
    assert (called.plugin_name, called.function_name) == ("sums", "add")
    assert (result.id, result.result) == (called.id, sum(sums.calls[0]))
    assert history.messages[1].finish_reason is FinishReason.TOOL_CALLS
    assert reply.content
    assert not any(isinstance(item, FunctionCallContent) for item in reply.items)


@both
async def test_auto_need_not_call(kernel: Kernel, sums: Sums, ask: Ask) -> None:
    history = asking("hello")
    assert (await ask(kernel, history, settings(Behavior.Auto()))).content
    assert (sums.calls, len(history.messages)) == ([], 1)


@both
async def test_calls_are_left_to_the_program(kernel: Kernel, sums: Sums, ask: Ask) -> None:
    history = asking("sums-add(1, 2)")
    reply = await ask(kernel, history, settings(Behavior.Auto(auto_invoke=False)))
    (called,) = [item for item in reply.items if isinstance(item, FunctionCallContent)]
    assert (called.name, sums.calls, len(history.messages)) == ("sums-add", [], 1)
    history.add_message(reply)
    await kernel.invoke_function_call(called, history)
    assert len(sums.calls) == 1
    assert (await ask(kernel, history, settings(Behavior.Auto(auto_invoke=False)))).content


async def test_required_calls_once(kernel: Kernel, sums: Sums, server: ScriptedServer) -> None:
    wanted = settings(Behavior.Required(filters={"included_functions": ["sums-add"]}))
    assert sent(kernel, asking("hello"), wanted).options.tool_choice == "required"
    reply = await whole(kernel, asking("hello"), wanted)
    assert (len(sums.calls), server.num_submits) == (1, 2)
    assert reply.content


@both
async def test_none_offers_functions_and_calls_none(kernel: Kernel, sums: Sums, ask: Ask) -> None:
    wanted = settings(Behavior.NoneInvoke())
    call = sent(kernel, asking("sums-add(1, 2)"), wanted)
    assert (call.options.tool_choice, len(call.options.tools)) == ("none", 2)
    assert (await ask(kernel, asking("sums-add(1, 2)"), wanted)).content
    assert sums.calls == []


@both
async def test_a_failing_function_is_told_to_the_model(kernel: Kernel, ask: Ask) -> None:
    history = asking("sums-fail()")
    assert (await ask(kernel, history, settings(Behavior.Auto()))).content
    result = history.messages[2].items[0]
    assert isinstance(result, FunctionResultContent)
    assert "it is broken" in str(result.result)


@both
async def test_a_filter_sees_calls_and_may_end_the_loop(
    kernel: Kernel, sums: Sums, server: ScriptedServer, ask: Ask
) -> None:
    seen: list[str] = []

    async def end(
        context: AutoFunctionInvocationContext,
        next: Callable[[AutoFunctionInvocationContext], Awaitable[None]],
    ) -> None:
        seen.append(context.function.fully_qualified_name)
        await next(context)
        context.terminate = True

    kernel.add_filter(FilterTypes.AUTO_FUNCTION_INVOCATION, end)
    reply = await ask(kernel, asking("sums-add(1, 2)"), settings(Behavior.Auto()))
    assert (seen, len(sums.calls), server.num_submits) == (["sums-add"], 1, 1)
    assert reply.role is AuthorRole.TOOL
    assert isinstance(reply.items[0], FunctionResultContent)


async def test_the_last_attempt_goes_without_functions(kernel: Kernel, sums: Sums) -> None:
    behavior = Behavior.Required(
        filters={"included_functions": ["sums-add"]}, maximum_auto_invoke_attempts=3
    )
    history = asking("hello")
    assert (await whole(kernel, history, settings(behavior))).content
    assert len(sums.calls) == 3


def test_functions_are_withdrawn(kernel: Kernel) -> None:
    wanted = settings(None, tools=[{"type": "function"}], tool_choice="required", temperature=0)
    service(kernel)._reset_function_choice_settings(wanted)
    assert (wanted.tools, wanted.tool_choice, wanted.temperature) == (None, None, 0)


async def test_the_functions_of_a_foreseen_call_are_those_of_the_kernel(kernel: Kernel) -> None:
    given = settings(Behavior.Auto(filters={"included_functions": ["sums-add"]}))
    call = sent(kernel, asking("x"), given)
    (tool,) = call.options.tools
    assert (tool.name, tool.description) == ("sums-add", "Add two numbers.")
    assert tool.parameters["required"] == ["a"]
    assert tool.parameters["properties"]["b"] == {"type": "integer", "description": "the other"}
    assert given.tools is None


async def test_prompt_functions_call_functions(kernel: Kernel, sums: Sums) -> None:
    arguments = KernelArguments(settings=settings(Behavior.Auto()))
    assert str(await kernel.invoke_prompt("sums-add(1, 2)", arguments=arguments))
    assert len(sums.calls) == 1


async def test_agents_call_functions_and_are_stages(
    server: ScriptedServer, kernel: Kernel, sums: Sums
) -> None:
    agent = ChatCompletionAgent(
        service=service(kernel).with_session(session="one"),
        name="Adder",
        instructions="Add.",
        plugins=[sums],
        function_choice_behavior=Behavior.Auto(),
    )
    replies = [reply async for reply in agent.invoke("Sums-add(1, 2)")]
    assert (len(sums.calls), len(replies)) == (1, 1)
    sessions = list(server.service.coordinator.sessions)
    assert {session.metadata for session in sessions} == {(("session", "one"),)}
    nodes = [node for session in sessions for node in session.graph.nodes.values()]
    assert {node.stage for node in nodes if isinstance(node, Request)} == {"Adder"}
    pieces = [reply.content.content async for reply in agent.invoke_stream("Sums-add(1, 2)")]
    assert "".join(pieces)
    assert len(sums.calls) == 2


@both
async def test_a_form_that_cannot_be_made_is_the_framework_s_error(
    kernel: Kernel, ask: Ask
) -> None:
    form = {"type": "grammar", "grammar": "root ::= 'a'"}
    with pytest.raises(ServiceInvalidRequestError):
        await ask(kernel, asking("x"), settings(None, response_format=form))
