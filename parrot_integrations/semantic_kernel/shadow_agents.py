"""Shadows of agents: they do what the agents do, and their models only note what they are asked."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole, ChatHistory, StreamingChatMessageContent
from semantic_kernel.filters import FilterTypes, FunctionInvocationContext
from semantic_kernel.functions import KernelArguments
from semantic_kernel.kernel import Kernel
from semantic_kernel.prompt_template import (
    HandlebarsPromptTemplate,
    Jinja2PromptTemplate,
    KernelPromptTemplate,
    PromptTemplateConfig,
)
from semantic_kernel.prompt_template.prompt_template_base import PromptTemplateBase
from semantic_kernel.services.ai_service_selector import AIServiceSelector

from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.submits import Terms
from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.semantic_kernel.chat_completion import ParrotChatCompletion

_TEMPLATES = (KernelPromptTemplate, HandlebarsPromptTemplate, Jinja2PromptTemplate)

#: An agent's reason may quote a value of any length.
_MAX_REASON_CHARS = 120


@dataclass(slots=True)
class Recording:
    """What the models of an orchestration will be asked.

    Attributes:
        builder: Records the calls.
        connection: The server of the calls, once there is one.
        terms: How the first call would be sent.
        refusal: Where and why the orchestration cannot be planned after all.
    """

    builder: PlanBuilder = field(default_factory=PlanBuilder)
    connection: Connection | None = None
    terms: Terms | None = None
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
        if type(service) is not ParrotChatCompletion:
            raise CannotPlan(f"its service is a {type(service).__name__}")
        calls, terms = service.foresee(history, settings, kernel)
        if len(calls) != 1:
            raise CannotPlan("it asks for several replies at once")
        if calls[0].options.tools:
            raise CannotPlan("its model may ask for tools")
        self._join(service.connection, terms)
        marker = self.builder.text_of(self.builder.call(calls[0], agent))
        return str.__str__(marker)

    def _join(self, connection: Connection, terms: Terms) -> None:
        """Make sure that one submit can carry all calls."""
        if self.connection is None or self.terms is None:
            self.connection, self.terms = connection, terms
            return
        own, other = self.connection.settings, connection.settings
        if (own.base_url, own.api_key) != (other.base_url, other.api_key):
            raise CannotPlan("its model is on another server than those before")
        if self.terms.app != terms.app or _session(self.terms) != _session(terms):
            raise CannotPlan("its calls belong to another session than those before")


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
    # Agents may share settings, which the framework changes; so do their copies.
    memo: dict[int, Any] = {}
    return [_shadow(member, recording, memo) for member in members]


def _shadow(
    member: ChatCompletionAgent, recording: Recording, memo: dict[int, Any]
) -> ChatCompletionAgent:
    kernel = member.kernel
    if type(kernel) is not Kernel or type(kernel.ai_service_selector) is not AIServiceSelector:
        raise CannotPlan(f"{member.name} has a kernel or a service selector of its own kind")
    template = member.prompt_template
    if template is not None and type(template) not in _TEMPLATES:
        raise CannotPlan(f"{member.name} has a {type(template).__name__}")
    update = {
        "kernel": _shadow_kernel(kernel, member.name, recording),
        "service": None,
        "arguments": _copied(member.arguments, memo),
        "prompt_template": None if template is None else _copied_template(template),
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
    shadow = Kernel(plugins=dict(kernel.plugins), services=services)

    async def refuse(
        context: FunctionInvocationContext,
        _next: Callable[[FunctionInvocationContext], Awaitable[None]],
    ) -> None:
        name = context.function.fully_qualified_name
        recording.refuse(agent, f"its instructions call {name}")

    shadow.add_filter(FilterTypes.FUNCTION_INVOCATION, refuse)
    return shadow


def _copied(arguments: KernelArguments | None, memo: dict[int, Any]) -> KernelArguments | None:
    if arguments is None:
        return None
    settings = copy.deepcopy(arguments.execution_settings, memo)
    return KernelArguments(settings=settings, **arguments)


def _copied_template(template: PromptTemplateBase) -> PromptTemplateBase:
    return template.model_copy()


def _session(terms: Terms) -> object:
    return terms.metadata.get("session")
