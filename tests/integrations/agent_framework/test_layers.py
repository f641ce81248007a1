"""The framework's layers around the client: workflows, histories, approvals, telemetry."""

from __future__ import annotations

from typing import Any

import pytest
from agent_framework import Agent, InMemoryHistoryProvider, Message, WorkflowBuilder, tool

from parrot_backend.protocol import CallNode, ToolCall
from parrot_integrations.agent_framework import ParrotChatClient, ParrotChatOptions, parrot_session
from tests.helpers.fake_parrot import FakeParrot


def roles(fake: FakeParrot) -> list[list[Any]]:
    """Roles of the messages of each submit's call, without the reply's."""
    nodes = [node for submit in fake.submits for node in submit.nodes]
    return [[m.role for m in n.messages or ()][:-1] for n in nodes if isinstance(n, CallNode)]


async def test_a_block_reaches_the_agents_of_a_workflow(
    chat: ParrotChatClient, fake: FakeParrot
) -> None:
    writer, critic = (
        Agent(chat, name=name, default_options=ParrotChatOptions(stage=name))
        for name in ("writer", "critic")
    )
    workflow = WorkflowBuilder(start_executor=writer).add_edge(writer, critic).build()
    with parrot_session(app="two", session="s1"):
        await workflow.run("a haiku")
    told = [(submit.app, submit.metadata) for submit in fake.submits]
    assert told == [("two", {"session": "s1"})] * 2
    assert fake.stages == ["writer", "critic"]


CALL = ToolCall(id="c1", name="add", arguments='{"a": 1, "b": 2}')


def calls_once(node: CallNode) -> dict[str, Any]:
    """Ask for the tool unless it has answered."""
    is_answered = any(message.role == "tool" for message in node.messages or ())
    return {} if is_answered else {"tool_calls": (CALL,)}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_history_that_is_kept_call_by_call(
    chat: ParrotChatClient, fake: FakeParrot, stream: bool
) -> None:
    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    fake.details = calls_once
    agent = Agent(
        chat,
        tools=[add],
        context_providers=[InMemoryHistoryProvider()],
        require_per_service_call_history_persistence=True,
    )
    session = agent.create_session()
    if stream:
        await agent.run("sum", session=session, stream=True).get_final_response()
    else:
        await agent.run("sum", session=session)
    assert roles(fake) == [["user"], ["user", "assistant", "tool"]]


async def test_a_tool_that_must_be_approved(chat: ParrotChatClient, fake: FakeParrot) -> None:
    added = []

    @tool(approval_mode="always_require")
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        added.append((a, b))
        return a + b

    fake.details = calls_once
    agent = Agent(chat, tools=[add])
    session = agent.create_session()
    asked = await agent.run("sum", session=session)
    (request,) = asked.user_input_requests
    assert added == []
    answer = Message("user", [request.to_function_approval_response(approved=True)])
    await agent.run(answer, session=session)
    assert added == [(1, 2)]
    assert roles(fake)[-1][-2:] == ["assistant", "tool"]


async def test_a_call_is_a_span(
    chat: ParrotChatClient, fake: FakeParrot, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    spans, provider = memory.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    monkeypatch.setattr("opentelemetry.trace.get_tracer", provider.get_tracer)
    await Agent(chat, name="teacher").run("why")
    provider.shutdown()
    (call, run) = spans.get_finished_spans()
    assert run.name == "invoke_agent teacher"
    assert call.attributes["gen_ai.provider.name"] == "parrot"
    assert call.attributes["server.address"] == "http://parrot.test"
    assert call.attributes["gen_ai.usage.output_tokens"] == 2
