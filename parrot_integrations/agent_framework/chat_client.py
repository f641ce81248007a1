"""``ParrotChatClient``: chat models that a Parrot server runs, for Microsoft Agent Framework."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, TypedDict

from agent_framework import (
    BaseChatClient,
    ChatAndFunctionMiddlewareTypes,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    CompactionStrategy,
    FunctionInvocationConfiguration,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
    SecretString,
    TokenizerProtocol,
    load_settings,
)
from agent_framework import prepend_instructions_to_messages as prepend_instructions
from agent_framework.observability import ChatTelemetryLayer

from parrot_integrations.agent_framework.errors import InvalidOptions, framework_errors
from parrot_integrations.agent_framework.messages import to_messages
from parrot_integrations.agent_framework.options import (
    ParrotChatOptions,
    read_options,
)
from parrot_integrations.agent_framework.results import to_response, to_update
from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.planning.annotations import (
    Annotation,
    Perf,
    annotated,
    default_perf,
    to_criteria,
)
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.direct import replies_to
from parrot_integrations.planning.options import CallSpec
from parrot_integrations.planning.reply import Reply
from parrot_integrations.planning.submits import Terms
from parrot_integrations.settings import resolve_settings


class _Settings(TypedDict, total=False):
    base_url: str | None
    api_key: SecretString | None
    chat_model_id: str | None


class ParrotChatClient(
    FunctionInvocationLayer[ParrotChatOptions],
    ChatMiddlewareLayer[ParrotChatOptions],
    ChatTelemetryLayer[ParrotChatOptions],
    BaseChatClient[ParrotChatOptions],
):
    """A chat client for a Parrot server, with tools, middleware and telemetry.

        client = ParrotChatClient(base_url="http://127.0.0.1:8642")
        agent = Agent(client, "You answer in one sentence.", name="teacher")

    Args:
        model: Name of the model, else ``PARROT_CHAT_MODEL_ID``, else the server's default.
        base_url: Address of the server, else ``PARROT_BASE_URL``.
        api_key: Sent as a bearer token, else ``PARROT_API_KEY``.
        app: Name of the application, for people and for metrics.
        perf: How urgent replies are; None leaves it to options and ``parrot_session``.
        timeout_s: Longest wait for one reply; then the call is given up.
        async_client: Replaces the client that all models of an event loop share.
        additional_properties: Kept for the framework's users.
        middleware: Of chats and of functions.
        function_invocation_configuration: How often and whether tools are called.
        compaction_strategy: Shortens chats before they are sent.
        tokenizer: Counts tokens for the strategy.
        env_file_path: A file that is asked before the environment.
        env_file_encoding: Its encoding.

    Raises:
        NotConfigured: No server is known; also a ``SettingNotFoundError``.
    """

    OTEL_PROVIDER_NAME: ClassVar[str] = "parrot"

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | SecretString | None = None,
        app: str | None = None,
        perf: Perf | None = None,
        timeout_s: float | None = None,
        async_client: AsyncParrotClient | None = None,
        additional_properties: dict[str, Any] | None = None,
        middleware: Sequence[ChatAndFunctionMiddlewareTypes] | None = None,
        function_invocation_configuration: FunctionInvocationConfiguration | None = None,
        compaction_strategy: CompactionStrategy | None = None,
        tokenizer: TokenizerProtocol | None = None,
        env_file_path: str | None = None,
        env_file_encoding: str | None = None,
    ) -> None:
        found = load_settings(
            _Settings,
            env_prefix="PARROT_",
            env_file_path=env_file_path,
            env_file_encoding=env_file_encoding,
            base_url=base_url,
            api_key=api_key,
            chat_model_id=model,
        )
        with framework_errors():
            self._connection = _connect(found, async_client)
        self.model = found.get("chat_model_id") or None
        self._own = Annotation(app=app, perf=perf)
        self._timeout_s = timeout_s
        super().__init__(
            additional_properties=additional_properties,
            middleware=middleware,
            function_invocation_configuration=function_invocation_configuration,
            compaction_strategy=compaction_strategy,
            tokenizer=tokenizer,
        )

    def service_url(self) -> str:
        """Return the address of the server, for telemetry: without credentials and query."""
        return self._connection.settings.public_url

    # --- what the framework calls -------------------------------------------------------------

    def _inner_get_response(
        self,
        *,
        messages: Sequence[Message],
        stream: bool,
        options: Mapping[str, Any],
        **kwargs: Any,
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        if stream:
            updates = self._updates(messages, options)
            response_format = options.get("response_format")
            return self._build_response_stream(updates, response_format=response_format)
        return self._response(messages, options)

    async def _response(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> ChatResponse[Any]:
        reply, spec = await self._reply(messages, options)
        with framework_errors():
            view = await reply.aresult()
        return to_response(view, spec.options.model, options.get("response_format"))

    async def _updates(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[ChatResponseUpdate, None]:
        reply, spec = await self._reply(messages, options)
        with framework_errors():
            async with aclosing(reply.aevents()) as events:
                async for event in events:
                    yield to_update(event, spec.options.model)

    async def _reply(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> tuple[Reply, CallSpec]:
        try:
            spec = read_options(await self._validate_options(options), self.model)
            instructed = prepend_instructions(list(messages), options.get("instructions"))
            call = ModelCall(spec.options, messages=to_messages(instructed))
            terms = self._terms(spec)
        except ValueError as exc:
            raise InvalidOptions("invalid_options", str(exc)) from exc
        (reply,) = replies_to([call], self._connection, terms)
        return reply, spec

    def _terms(self, spec: CallSpec) -> Terms:
        """Return how a call is sent; its own options win, then the annotations."""
        annotation = spec.annotation.over(annotated()).over(self._own)
        return Terms(
            app=annotation.app or "",
            metadata=annotation.labels(),
            stage=annotation.call_stage,
            criteria=to_criteria(annotation.perf or default_perf()),
            timeout_s=self._timeout_s if spec.timeout_s is None else spec.timeout_s,
        )


def _connect(found: _Settings, async_client: AsyncParrotClient | None) -> Connection:
    if async_client is not None:
        return Connection(async_client.settings, own_async_client=async_client)
    key = found.get("api_key")
    return Connection(
        resolve_settings(found.get("base_url"), None if key is None else key.get_secret_value())
    )
