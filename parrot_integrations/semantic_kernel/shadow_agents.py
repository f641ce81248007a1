"""Shadows of agents: they do what the agents do, and their models only note what they are asked."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole, ChatHistory, StreamingChatMessageContent
from semantic_kernel.functions import KernelArguments, KernelFunction, KernelFunctionFromPrompt
from semantic_kernel.kernel import Kernel

from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.submits import Terms
from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.semantic_kernel.chat_completion import ParrotChatCompletion
from parrot_integrations.semantic_kernel.copies import copied
from parrot_integrations.semantic_kernel.invocations import Invocation
from parrot_integrations.semantic_kernel.shadow import ShadowKernel, Traced
from parrot_integrations.semantic_kernel.shadow_templates import ShadowTemplate, patches_asyncio
from parrot_integrations.semantic_kernel.stock import check_kernel, check_service
from parrot_integrations.semantic_kernel.symbolic import TracedResult
from parrot_integrations.semantic_kernel.tracer import Tracer

_logger = logging.getLogger(__name__)

#: An agent's reason may quote a value of any length.
_MAX_REASON_CHARS = 120


@dataclass(slots=True)
class Recording:
    """What the models of an orchestration will be asked.

    Attributes:
        builder: Records the calls.
        connection: The server of the calls, once there is one.
        terms: How the first agent's call would be sent.
        root: Has the invocations of functions in instructions.
        refusal: Where and why the orchestration cannot be planned after all.
    """

    builder: PlanBuilder = field(default_factory=PlanBuilder)
    connection: Connection | None = None
    terms: Terms | None = None
    root: Invocation = field(default_factory=Invocation)
    refusal: tuple[str, str] | None = None

    def refuse(self, where: str, why: str) -> None:
        """Note that there will be no plan; the first reason counts."""
        self.refusal = self.refusal or (where, why)

    def answer(
        self,
        agent: str,
        service: ChatCompletionClientBase,
        history: ChatHistory,
        settings: PromptExecutionSettings,
        kernel: Kernel | None,
    ) -> str:
        """Return the marker of the answer to a call, and record the call."""
        try:
            return self._record(agent, service, history, settings, kernel)
        except CannotPlan as exc:
            self.refuse(agent, str(exc))
        except Exception as exc:
            # The agent's own call fails, too, and tells what is wrong in the framework's words.
            _logger.debug("a call could not be foreseen", exc_info=True)
            self.refuse(agent, f"{type(exc).__name__}: {str(exc)[:_MAX_REASON_CHARS]}")
        return ""

    def _record(
        self,
        agent: str,
        service: ChatCompletionClientBase,
        history: ChatHistory,
        settings: PromptExecutionSettings,
        kernel: Kernel | None,
    ) -> str:
        check_service(service)
        assert isinstance(service, ParrotChatCompletion), "as was checked"
        calls, terms = service.foresee(history, settings, kernel)
        if len(calls) != 1:
            raise CannotPlan("it asks for several replies at once")
        options = calls[0].options
        if options.tools and options.tool_choice != "none":
            raise CannotPlan("its model may ask for tools")
        if not any(calls[0].texts):
            raise CannotPlan("nothing is said to its model")
        self.join(agent, service.connection)
        self.terms = self.terms or terms
        if self.terms.app != terms.app or _session(self.terms) != _session(terms):
            raise CannotPlan("its calls belong to another session than those before")
        marker = self.builder.text_of(self.builder.call(calls[0], agent, terms.stage))
        return str.__str__(marker)

    def join(self, agent: str, connection: Connection) -> None:
        """Note a server that is asked; there can be but one."""
        if self.connection is None:
            self.connection = connection
        if not self.connection.settings.is_same_server(connection.settings):
            self.refuse(agent, "its model is on another server than those before")


class _ShadowService(ChatCompletionClientBase):
    """Stands in for a service of one agent."""

    agent: str
    original: Any = Field(exclude=True)
    recording: Any = Field(exclude=True)

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return self._original.get_prompt_execution_settings_class()

    @property
    def _original(self) -> ChatCompletionClientBase:
        found: ChatCompletionClientBase = self.original
        return found

    async def get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, **kwargs: Any
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        recording: Recording = self.recording
        text = recording.answer(
            self.agent, self._original, chat_history, settings, kwargs.get("kernel")
        )
        # A message without any text would look like no answer at all.
        yield [
            StreamingChatMessageContent(
                role=AuthorRole.ASSISTANT, choice_index=0, content=text or "refused"
            )
        ]


def shadows_of(
    members: list[ChatCompletionAgent], recording: Recording
) -> list[ChatCompletionAgent]:
    """Return shadows of agents; what they do changes nothing of the agents.

    Raises:
        CannotPlan: An agent has something of the user's that would run.
    """
    # Agents may share settings and histories, which change; so do their copies.
    memo: dict[int, Any] = {}
    shadows = []
    for member in members:
        try:
            shadows.append(_shadow(member, recording, memo))
        except CannotPlan as exc:
            raise CannotPlan(f"{member.name}: {exc}") from exc
    return shadows


def _shadow(
    member: ChatCompletionAgent, recording: Recording, memo: dict[int, Any]
) -> ChatCompletionAgent:
    check_kernel(member.kernel)
    shadow = ShadowKernel(member.kernel, _tracing(member, recording))
    template = ShadowTemplate.of(
        member.prompt_template,
        member.instructions,
        shadow,
        lambda why: recording.refuse(member.name, why),
    )
    arguments = member.arguments
    if arguments is not None:
        arguments = copied(arguments, memo)
        arguments.execution_settings = copy.deepcopy(arguments.execution_settings, memo)
    update = {
        "kernel": _shadow_kernel(member.kernel, member.name, recording),
        "service": None,
        "arguments": arguments,
        "prompt_template": template,
    }
    return member.model_copy(update=update)


def _shadow_kernel(kernel: Kernel, agent: str, recording: Recording) -> Kernel:
    services: dict[str, Any] = {
        service_id: _ShadowService(
            ai_model_id=service.ai_model_id,
            service_id=service.service_id,
            agent=agent,
            original=service,
            recording=recording,
        )
        for service_id, service in kernel.services.items()
        if isinstance(service, ChatCompletionClientBase)
    }
    return Kernel(plugins=dict(kernel.plugins), services=services)


def _tracing(member: ChatCompletionAgent, recording: Recording) -> Traced:
    """Return what takes the place of functions in an agent's instructions."""
    tracer = Tracer(member.kernel, recording.builder)

    async def traced(function: KernelFunction, arguments: KernelArguments) -> TracedResult:
        if (why := _patching(member.kernel)) is not None:
            recording.refuse(member.name, why)
            return TracedResult(str)
        result = await tracer.trace(function, arguments, recording.root)
        if tracer.connection is not None:
            recording.join(member.name, tracer.connection)
        return result

    return traced


def _patching(kernel: Kernel) -> str | None:
    """Return why functions of a kernel cannot be traced before an orchestration begins."""
    for plugin in kernel.plugins.values():
        for function in plugin:
            if not isinstance(function, KernelFunctionFromPrompt):
                continue
            if patches_asyncio(function.prompt_template):
                return f"in its instructions, {function.fully_qualified_name} may patch asyncio"
    return None


def _session(terms: Terms) -> object:
    return terms.metadata.get("session")
