"""``ParrotChatCompletion``: chat models that a Parrot server runs, for Semantic Kernel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, ClassVar

from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.function_calling_utils import (
    update_settings_from_function_call_configuration,
)
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import (
    ChatHistory,
    ChatMessageContent,
    StreamingChatMessageContent,
)
from semantic_kernel.kernel import Kernel
from semantic_kernel.utils.telemetry.model_diagnostics.decorators import (
    trace_chat_completion,
    trace_streaming_chat_completion,
)

from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.planning.annotations import Perf
from parrot_integrations.planning.calls import ChatMessage, ModelCall
from parrot_integrations.planning.direct import aresults, replies_to
from parrot_integrations.planning.submits import Terms, succeeded
from parrot_integrations.semantic_kernel.contents import to_chat_chunk, to_chat_message
from parrot_integrations.semantic_kernel.errors import (
    InvalidHistory,
    InvalidSettings,
    service_errors,
)
from parrot_integrations.semantic_kernel.execution_settings import (
    ParrotChatPromptExecutionSettings,
    ParrotPromptExecutionSettings,
)
from parrot_integrations.semantic_kernel.histories import instructing_name, to_messages
from parrot_integrations.semantic_kernel.services import ParrotService, only_one
from parrot_integrations.semantic_kernel.streams import have_left_streams_closed


class ParrotChatCompletion(ParrotService, ChatCompletionClientBase):
    """A chat model on a Parrot server.

        kernel.add_service(ParrotChatCompletion(host="http://127.0.0.1:8642"))

    It can be used wherever a chat service can, by agents too, and calls functions. The
    arguments are those of ``ParrotService``.
    """

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = True
    MODEL_SETTING: ClassVar[str] = "chat_model_id"

    def __init__(
        self,
        ai_model_id: str | None = None,
        *,
        service_id: str | None = None,
        host: str | None = None,
        api_key: str | None = None,
        app: str | None = None,
        perf: Perf | None = None,
        timeout_s: float | None = None,
        client: AsyncParrotClient | None = None,
        env_file_path: str | None = None,
        env_file_encoding: str | None = None,
    ) -> None:
        # Type checkers would make an `__init__` of the fields if the class had none of its own.
        super().__init__(
            ai_model_id,
            service_id=service_id,
            host=host,
            api_key=api_key,
            app=app,
            perf=perf,
            timeout_s=timeout_s,
            client=client,
            env_file_path=env_file_path,
            env_file_encoding=env_file_encoding,
        )

    def foresee(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, kernel: Kernel | None
    ) -> tuple[list[ModelCall], Terms]:
        """Return the calls that the first request for a history would make, and their terms. Pure.

        Args:
            chat_history: The chat; its texts may hold a planner's markers.
            settings: Execution settings of any class; they stay as they are.
            kernel: Where the functions are, if the settings let the model call some.

        Raises:
            ServiceException: The request would fail before it is sent.
        """
        own = self._own_copy(settings)
        behavior = own.function_choice_behavior
        if behavior is not None:
            if kernel is None:
                raise InvalidSettings(
                    "no_kernel", "function_choice_behavior needs a kernel: pass kernel="
                )
            self._verify_function_choice_settings(own)
            behavior.configure(
                kernel=kernel,
                update_settings_callback=self._update_function_choice_settings_callback(),
                settings=own,
            )
        return self._calls(chat_history, own)

    # --- what Semantic Kernel calls -----------------------------------------------------------

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        """Return the class of settings."""
        return ParrotChatPromptExecutionSettings

    @trace_chat_completion(ParrotService.MODEL_PROVIDER_NAME)
    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        own = self._own(settings)
        calls, terms = self._calls(chat_history, own)
        with service_errors():
            views = succeeded(await aresults(replies_to(calls, self.connection, terms)))
        return [to_chat_message(view, self._model_of(own)) for view in views]

    @trace_streaming_chat_completion(ParrotService.MODEL_PROVIDER_NAME)
    def _inner_get_streaming_chat_message_contents(
        self,
        chat_history: ChatHistory,
        settings: PromptExecutionSettings,
        function_invoke_attempt: int = 0,
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        have_left_streams_closed()
        return self._stream(chat_history, settings, function_invoke_attempt)

    def _prepare_chat_history_for_request(
        self, chat_history: ChatHistory, role_key: str = "role", content_key: str = "content"
    ) -> tuple[ChatMessage, ...]:
        try:
            return to_messages(chat_history)
        except ValueError as exc:
            raise InvalidHistory("invalid_history", str(exc)) from exc

    def _verify_function_choice_settings(self, settings: PromptExecutionSettings) -> None:
        if (getattr(settings, "number_of_responses", None) or 1) > 1:
            raise InvalidSettings(
                "several_replies", "number_of_responses must be 1 for a model that calls functions"
            )

    def _update_function_choice_settings_callback(self) -> Callable[..., None]:
        return update_settings_from_function_call_configuration

    def _reset_function_choice_settings(self, settings: PromptExecutionSettings) -> None:
        if isinstance(settings, ParrotChatPromptExecutionSettings):
            settings.tool_choice = None
            settings.tools = None

    # --- on the way to the server -------------------------------------------------------------

    async def _stream(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, attempt: int
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        own = self._own(settings)
        only_one(own)
        calls, terms = self._calls(chat_history, own)
        with service_errors():
            (reply,) = replies_to(calls, self.connection, terms)
            async with aclosing(reply.aevents()) as events:
                async for event in events:
                    yield [to_chat_chunk(event, self._model_of(own), attempt)]

    def _calls(
        self, chat_history: ChatHistory, settings: ParrotPromptExecutionSettings
    ) -> tuple[list[ModelCall], Terms]:
        messages = self._prepare_chat_history_for_request(chat_history)
        calls = [ModelCall(options, messages=messages) for options in self._options(settings)]
        return calls, self._terms(settings, instructing_name(chat_history))
