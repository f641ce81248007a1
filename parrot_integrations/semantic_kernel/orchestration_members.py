"""Members of an orchestration as its actors see them: the user's agents, within a run."""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import aclosing
from typing import Any, Self

from pydantic import PrivateAttr
from semantic_kernel.agents import Agent, AgentResponseItem, AgentThread
from semantic_kernel.contents import ChatMessageContent, StreamingChatMessageContent

from parrot_integrations.semantic_kernel.orchestration_runs import OrchestrationRun

_Messages = str | ChatMessageContent | list[str | ChatMessageContent] | None


class Member(Agent):
    """An agent of the user's, with a run in force while it works."""

    _original: Agent = PrivateAttr()
    _run: OrchestrationRun = PrivateAttr()

    @classmethod
    def of(cls, agent: Agent, run: OrchestrationRun) -> Self:
        """Return an agent as a member of a run."""
        # The fields are valid already, or were made what they are on purpose.
        made = cls.model_construct(
            id=agent.id,
            name=agent.name,
            description=agent.description,
            instructions=agent.instructions,
            kernel=agent.kernel,
            arguments=agent.arguments,
            prompt_template=agent.prompt_template,
        )
        made._original, made._run = agent, run
        return made

    async def get_response(
        self, messages: _Messages = None, *, thread: AgentThread | None = None, **kwargs: Any
    ) -> AgentResponseItem[ChatMessageContent]:
        """Return the agent's response."""
        with self._run.scope(self.name):
            return await self._original.get_response(messages, thread=thread, **kwargs)

    async def invoke(
        self, messages: _Messages = None, *, thread: AgentThread | None = None, **kwargs: Any
    ) -> AsyncIterable[AgentResponseItem[ChatMessageContent]]:
        """Yield the agent's responses."""
        items = self._original.invoke(messages, thread=thread, **kwargs)
        async with aclosing(self._run.step(self.name, items)) as step:
            async for item in step:
                yield item

    async def invoke_stream(
        self, messages: _Messages = None, *, thread: AgentThread | None = None, **kwargs: Any
    ) -> AsyncIterable[AgentResponseItem[StreamingChatMessageContent]]:
        """Yield the agent's responses piece by piece."""
        items = self._original.invoke_stream(messages, thread=thread, **kwargs)
        async with aclosing(self._run.step(self.name, items)) as step:
            async for item in step:
                yield item
