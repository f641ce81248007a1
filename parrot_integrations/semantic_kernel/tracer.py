"""The tracer: renders prompt functions with stand-ins for generated texts, and records their calls.

The framework's own template engines and its own reading of rendered prompts are used, on a kernel
whose functions do not run: an invocation of a prompt function is traced in its turn, all others
are steps of the client. No code of the user runs but functions marked ``@traceable_step``, and
prompt filters if that is wished.
"""

from __future__ import annotations

import logging
from html import unescape
from typing import Any

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.connectors.ai.text_completion_client_base import TextCompletionClientBase
from semantic_kernel.contents import ChatHistory
from semantic_kernel.filters import FilterTypes, PromptRenderContext
from semantic_kernel.functions import (
    FunctionResult,
    KernelArguments,
    KernelFunction,
    KernelFunctionFromPrompt,
)

from parrot_integrations.planning.builder import PlanBuilder
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.submits import Terms
from parrot_integrations.planning.symbols import CannotPlan
from parrot_integrations.semantic_kernel.chat_completion import ParrotChatCompletion
from parrot_integrations.semantic_kernel.filters import FilterRules
from parrot_integrations.semantic_kernel.invocations import Invocation
from parrot_integrations.semantic_kernel.native import look_through
from parrot_integrations.semantic_kernel.services import ParrotService
from parrot_integrations.semantic_kernel.shadow import ShadowKernel, quietly
from parrot_integrations.semantic_kernel.stock import (
    check_kernel,
    check_prompt_function,
    check_service,
)
from parrot_integrations.semantic_kernel.symbolic import TemplateCut, TemplateText, TracedResult
from parrot_integrations.semantic_kernel.text_completion import ParrotTextCompletion

_logger = logging.getLogger(__name__)

_REASON_CHARS = 160
#: Bounds of one trace: functions may invoke themselves for ever. The server takes 10,000 nodes.
_MAX_INVOCATIONS, _MAX_DEPTH = 2_000, 32

#: What the framework's class leaves open until it is used.
_CONTEXT_TYPES = {
    kind.__name__: kind for kind in (FunctionResult, Kernel, KernelArguments, KernelFunction)
}


class TraceTooLarge(BaseException):
    """A trace seems to have no end; the message says at what bound it was ended.

    It is no ``Exception``, so that the templates around it do not go on.
    """


class Tracer:
    """Traces invocations into one plan.

    Args:
        kernel: Has the functions, services and filters.
        builder: Records the plan.
        filters: What is done about filters of the user.

    Attributes:
        builder: As given.
        root: The invocations that were traced.
        terms: How the last call would be sent by itself, once there is one.
        connection: The server of the calls, once there is one.
    """

    def __init__(
        self, kernel: Kernel, builder: PlanBuilder, filters: FilterRules | None = None
    ) -> None:
        self.builder = builder
        self.root = Invocation()
        self.terms: Terms | None = None
        self.connection: Connection | None = None
        self._kernel = kernel
        self._filters = filters or FilterRules()
        self._num_invocations = 0

    async def trace(
        self,
        function: KernelFunction,
        arguments: KernelArguments,
        within: Invocation | None = None,
        *,
        is_streaming: bool = False,
    ) -> TracedResult:
        """Return what stands for the result of an invocation.

        Args:
            function: What is invoked.
            arguments: With what; they change as an invocation changes them.
            within: The invocation around it.
            is_streaming: Whether the result is read as a stream.

        Raises:
            TraceTooLarge: There seems to be no end to it.
        """
        invocation = (within or self.root).add(function)
        self._num_invocations += 1
        if invocation.depth > _MAX_DEPTH or self._num_invocations > _MAX_INVOCATIONS:
            raise TraceTooLarge(f"there are more than {_MAX_INVOCATIONS} functions, or deeper ones")
        try:
            with quietly():
                if isinstance(function, KernelFunctionFromPrompt):
                    text = await self._prompt(function, arguments, invocation, is_streaming)
                else:
                    text = await look_through(function, arguments)
                    invocation.is_traced = True
        except (TemplateCut, Exception) as exc:  # noqa: BLE001 - whatever an engine says of a marker
            return self._leave(invocation, function, _reason(exc))
        return TracedResult(lambda: text)

    async def _prompt(
        self,
        function: KernelFunctionFromPrompt,
        arguments: KernelArguments,
        invocation: Invocation,
        is_streaming: bool,
    ) -> str:
        """Return the text that a prompt function generates."""
        check_kernel(self._kernel)
        self._filters.check(self._kernel)
        check_prompt_function(function)
        function.update_arguments_with_defaults(arguments)
        rendered = await self._rendered(function, arguments, invocation, is_streaming)
        kinds = (TextCompletionClientBase, ChatCompletionClientBase) if is_streaming else None
        service, settings = self._kernel.select_ai_service(
            function=function, arguments=arguments, type=kinds
        )
        if isinstance(rendered, FunctionResult):
            invocation.is_traced = True
            return str(rendered)
        calls, stage = self._foresee(service, settings, rendered, is_streaming)
        name = function.fully_qualified_name
        replies = [self.builder.call(call, name, stage) for call in calls]
        invocation.num_calls, invocation.is_traced = len(calls), True
        if any(call.options.tools and call.options.tool_choice != "none" for call in calls):
            invocation.is_open = True
            raise CannotPlan("the model may ask for tools")
        return TemplateText.of(self.builder.text_of(replies[0]))

    async def _rendered(
        self,
        function: KernelFunctionFromPrompt,
        arguments: KernelArguments,
        invocation: Invocation,
        is_streaming: bool,
    ) -> str | FunctionResult:
        """Return the rendered prompt with markers, or the result if a filter knows it already.

        Raises:
            CannotPlan: The user's filters render none.
        """
        template = function.prompt_template
        config = template.prompt_template_config
        # Then templates get results instead of escaped texts.
        has_results = template.allow_dangerously_set_content or config.allow_dangerously_set_content

        async def traced(inner: KernelFunction, given: KernelArguments) -> TracedResult:
            result = await self.trace(inner, given, invocation)
            result.is_printed = has_results
            return result

        shadow: Any = ShadowKernel(self._kernel, traced)
        if not self._kernel.prompt_rendering_filters or self._filters.prompt == "ignore":
            return str.__str__(await template.render(shadow, arguments))

        async def render(inner: PromptRenderContext) -> None:
            inner.rendered_prompt = str.__str__(await template.render(shadow, inner.arguments))

        PromptRenderContext.model_rebuild(_types_namespace=_CONTEXT_TYPES)
        context = PromptRenderContext(
            function=function, kernel=self._kernel, arguments=arguments, is_streaming=is_streaming
        )
        await self._kernel.construct_call_stack(FilterTypes.PROMPT_RENDERING, render)(context)
        if context.rendered_prompt is None:
            raise CannotPlan("its filters render no prompt")
        return context.function_result or context.rendered_prompt

    def _foresee(
        self,
        service: object,
        settings: PromptExecutionSettings,
        rendered: str,
        is_streaming: bool,
    ) -> tuple[list[ModelCall], str | None]:
        """Return the calls for a rendered prompt, and their stage.

        Raises:
            CannotPlan: They are not for a service of ours, or cannot be foreseen.
        """
        check_service(service)
        assert isinstance(service, ParrotService), "as was checked"
        if isinstance(service, ParrotChatCompletion):
            history = ChatHistory.from_rendered_prompt(rendered)
            calls, terms = service.foresee(history, settings, self._kernel)
        else:
            assert isinstance(service, ParrotTextCompletion), "as was checked"
            # Only without a stream, the framework reads it as HTML.
            prompt = rendered if is_streaming else unescape(rendered)
            calls, terms = service.foresee(prompt, settings)
        if any(self.builder.markers.is_marked(repr(call.frame)) for call in calls):
            raise CannotPlan("a generated value is more than the text of a message")
        self._use(service, terms)
        return calls, terms.stage

    def _use(self, service: ParrotService, terms: Terms) -> None:
        """Note that a service is asked.

        Raises:
            CannotPlan: It is on another server than those before.
        """
        if self.connection is None:
            self.connection = service.connection
        if not self.connection.settings.is_same_server(service.connection.settings):
            raise CannotPlan("its service is on another server than the first one's")
        self.terms = terms

    def _leave(self, invocation: Invocation, function: KernelFunction, why: str) -> TracedResult:
        """Leave an invocation to the client; its text is late-bound if somebody reads it."""
        name = function.fully_qualified_name
        if isinstance(function, KernelFunctionFromPrompt):
            self.builder.cut(name, why)

        def late() -> str:
            text = TemplateText.of(self.builder.late(name, why))
            invocation.late = text.symbol.variable
            return text

        return TracedResult(late)


def _reason(exc: BaseException) -> str:
    """Return why something cannot be foreseen; engines wrap what they are told."""
    error: BaseException | None = exc
    while error is not None:
        if isinstance(error, CannotPlan | TemplateCut):
            return str(error)
        error = error.__cause__ or error.__context__
    # If it fails of the values themselves too, the run will tell.
    _logger.debug("an invocation could not be traced", exc_info=exc)
    return f"{type(exc).__name__}: {str(exc)[:_REASON_CHARS]}"
