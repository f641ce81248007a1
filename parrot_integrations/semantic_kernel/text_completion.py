"""``ParrotTextCompletion``: raw prompts on a Parrot server, for Semantic Kernel."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar

from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.connectors.ai.text_completion_client_base import TextCompletionClientBase
from semantic_kernel.contents import StreamingTextContent, TextContent
from semantic_kernel.utils.telemetry.model_diagnostics.decorators import (
    trace_streaming_text_completion,
    trace_text_completion,
)

from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.planning.annotations import Perf
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.direct import aresults, replies_to
from parrot_integrations.planning.submits import Terms, succeeded
from parrot_integrations.semantic_kernel.contents import to_text, to_text_chunk
from parrot_integrations.semantic_kernel.errors import service_errors
from parrot_integrations.semantic_kernel.execution_settings import (
    ParrotPromptExecutionSettings,
    ParrotTextPromptExecutionSettings,
)
from parrot_integrations.semantic_kernel.services import ParrotService, only_one
from parrot_integrations.semantic_kernel.streams import have_left_streams_closed


class ParrotTextCompletion(ParrotService, TextCompletionClientBase):
    """A text model on a Parrot server: the prompt goes to the model as it is.

        kernel.add_service(ParrotTextCompletion(host="http://127.0.0.1:8642"))

    The arguments are those of ``ParrotService``.
    """

    MODEL_SETTING: ClassVar[str] = "text_model_id"

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
        self, prompt: str, settings: PromptExecutionSettings
    ) -> tuple[list[ModelCall], Terms]:
        """Return the calls that a request for a prompt would make, and their terms. Pure.

        Args:
            prompt: The prompt; it may hold a planner's markers.
            settings: Execution settings of any class; they stay as they are.

        Raises:
            ServiceException: The request would fail before it is sent.
        """
        return self._calls(prompt, self._own_copy(settings))

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        """Return the class of settings."""
        return ParrotTextPromptExecutionSettings

    @trace_text_completion(ParrotService.MODEL_PROVIDER_NAME)
    async def _inner_get_text_contents(
        self, prompt: str, settings: PromptExecutionSettings
    ) -> list[TextContent]:
        own = self._own(settings)
        calls, terms = self._calls(prompt, own)
        with service_errors():
            views = succeeded(await aresults(replies_to(calls, self.connection, terms)))
        return [to_text(view, self._model_of(own)) for view in views]

    @trace_streaming_text_completion(ParrotService.MODEL_PROVIDER_NAME)
    def _inner_get_streaming_text_contents(
        self, prompt: str, settings: PromptExecutionSettings
    ) -> AsyncGenerator[list[StreamingTextContent], Any]:
        have_left_streams_closed()
        return self._stream(prompt, settings)

    async def _stream(
        self, prompt: str, settings: PromptExecutionSettings
    ) -> AsyncGenerator[list[StreamingTextContent], Any]:
        own = self._own(settings)
        only_one(own)
        calls, terms = self._calls(prompt, own)
        with service_errors():
            (reply,) = replies_to(calls, self.connection, terms)
            async with aclosing(reply.aevents()) as events:
                async for event in events:
                    yield [to_text_chunk(event, self._model_of(own))]

    def _calls(
        self, prompt: str, settings: ParrotPromptExecutionSettings
    ) -> tuple[list[ModelCall], Terms]:
        calls = [ModelCall(options, prompt=prompt) for options in self._options(settings)]
        return calls, self._terms(settings)
