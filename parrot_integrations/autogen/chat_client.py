"""``ParrotChatCompletionClient``: chat models that a Parrot server runs, for AutoGen."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

from autogen_core import CancellationToken, Component
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelInfo,
    RequestUsage,
    validate_model_info,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel

from parrot_backend.protocol import VariableView
from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.autogen.cancelling import stream_unless_cancelled, unless_cancelled
from parrot_integrations.autogen.config import (
    ParrotClientConfig,
    as_data,
    default_model_info,
    public_address,
    whole_address,
)
from parrot_integrations.autogen.events import tell_call, tell_stream_end, tell_stream_start
from parrot_integrations.autogen.messages import to_messages
from parrot_integrations.autogen.options import Choice, read_arguments
from parrot_integrations.autogen.results import to_result
from parrot_integrations.autogen.team import at_work
from parrot_integrations.autogen.tokens import TokenEstimate
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
from parrot_integrations.planning.reply import Reply, ReplyText
from parrot_integrations.planning.submits import Terms
from parrot_integrations.settings import resolve_settings


class ParrotChatCompletionClient(ChatCompletionClient, Component[ParrotClientConfig]):
    """A model client for a Parrot server.

        client = ParrotChatCompletionClient(base_url="http://127.0.0.1:8642", temperature=0)
        agents = [AssistantAgent(name, client) for name in ("writer", "critic")]
        team = RoundRobinGroupChat(agents, max_turns=4)

    Args:
        model: Name of the model; None is the server's default.
        base_url: Address of the server, else ``PARROT_BASE_URL``.
        api_key: Sent as a bearer token, else ``PARROT_API_KEY``. Neither it nor a secret in the
            address is part of the config that ``dump_component`` writes.
        app: Name of the application, for people and for metrics.
        session: What belongs together; else the team's id.
        stage: Which part of the program this is; else the agent's name.
        perf: How urgent replies are; None leaves it to arguments and ``parrot_session``.
        timeout_s: Longest wait for one reply; then the call is given up.
        context_tokens: Length of the model's context, for ``remaining_tokens``.
        model_info: What the model can do; None is text, tools and JSON.
        async_client: Replaces the client that all models of an event loop share.
        create_args: Arguments of every call, in OpenAI's words; ``extra_create_args`` override
            them.

    Raises:
        NotConfigured: No server is known.
        ValueError: An argument is unknown or wrong.
    """

    component_type = "model"
    component_config_schema = ParrotClientConfig
    component_provider_override = "parrot_integrations.autogen.ParrotChatCompletionClient"

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        app: str | None = None,
        session: str | None = None,
        stage: str | None = None,
        perf: Perf | None = None,
        timeout_s: float | None = None,
        context_tokens: int | None = None,
        model_info: ModelInfo | None = None,
        async_client: AsyncParrotClient | None = None,
        **create_args: Any,
    ) -> None:
        if async_client is not None:
            self._connection = Connection(async_client.settings, own_async_client=async_client)
        else:
            self._connection = Connection(resolve_settings(base_url, api_key))
        self._info = model_info or default_model_info()
        validate_model_info(self._info)
        read_arguments(create_args)
        to_criteria(perf)
        self._config = ParrotClientConfig(
            model=model,
            base_url=public_address(self._connection.settings),
            app=app,
            session=session,
            stage=stage,
            perf=perf,
            timeout_s=timeout_s,
            context_tokens=context_tokens,
            info=None if model_info is None else dict(model_info),
            create_args=as_data(create_args),
        )
        self._tokens = TokenEstimate()
        self._last_usage = RequestUsage(0, 0)
        self._total_usage = RequestUsage(0, 0)

    # --- what the framework calls -------------------------------------------------------------

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Choice = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> CreateResult:
        """Return a reply; a cancelled token gives the call up on the server, too."""
        spec = self._spec(extra_create_args, tools, tool_choice, json_output)
        call, reply = self._reply(messages, spec)
        view = await unless_cancelled(reply.aresult(), cancellation_token)
        result = self._result(call, view)
        tell_call(call, result)
        return result

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Choice = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Yield a reply's text as it is generated, then the reply; closing gives the call up."""
        spec = self._spec(extra_create_args, tools, tool_choice, json_output)
        call, reply = self._reply(messages, spec)
        events = stream_unless_cancelled(reply.aevents(), cancellation_token)
        tell_stream_start(call)
        async with aclosing(events):
            async for event in events:
                if not isinstance(event, ReplyText):
                    result = self._result(call, event)
                    tell_stream_end(result)
                    yield result
                elif event.kind == "text":
                    yield event.text

    async def close(self) -> None:
        """Do nothing: connections are shared, and closed when their event loop ends."""

    def actual_usage(self) -> RequestUsage:
        """Return the tokens of the last call."""
        return self._last_usage

    def total_usage(self) -> RequestUsage:
        """Return the tokens of all calls."""
        return self._total_usage

    def count_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """Estimate the tokens of a prompt; see ``TokenEstimate``."""
        options = read_arguments({}, tools=tools).options
        return self._tokens.of(ModelCall(options, messages=to_messages(messages)))

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """Estimate the tokens that a prompt leaves of the context.

        Raises:
            ValueError: The length of the context was not given.
        """
        if self._config.context_tokens is None:
            raise ValueError("the model's context is not known: give context_tokens= to the client")
        return self._config.context_tokens - self.count_tokens(messages, tools=tools)

    @property
    def capabilities(self) -> ModelInfo:
        """Return ``model_info``; the name is AutoGen's old one."""
        return self._info

    @property
    def model_info(self) -> ModelInfo:
        """Return what the model can do."""
        return self._info

    def _to_config(self) -> ParrotClientConfig:
        return self._config.model_copy(deep=True)

    @classmethod
    def _from_config(cls, config: ParrotClientConfig) -> Self:
        given = {name: getattr(config, name) for name in type(config).model_fields}
        info, create_args = given.pop("info"), given.pop("create_args")
        given["base_url"] = whole_address(config.base_url)
        return cls(**given, model_info=info, **create_args)

    # ------------------------------------------------------------------------------------------

    def _spec(
        self,
        extra: Mapping[str, Any],
        tools: Sequence[Tool | ToolSchema],
        tool_choice: Choice,
        json_output: bool | type[BaseModel] | None,
    ) -> CallSpec:
        return read_arguments(
            {**self._config.create_args, **extra},
            model=self._config.model,
            tools=tools,
            tool_choice=tool_choice,
            json_output=json_output,
        )

    def _reply(self, messages: Sequence[LLMMessage], spec: CallSpec) -> tuple[ModelCall, Reply]:
        call = ModelCall(spec.options, messages=to_messages(messages))
        config = self._config
        own = Annotation(config.app, config.session, config.stage, config.perf)
        said = spec.annotation.over(annotated()).over(own).over(at_work(messages))
        terms = Terms(
            app=said.app or "",
            metadata=said.labels(),
            stage=said.call_stage,
            criteria=to_criteria(said.perf or default_perf()),
            timeout_s=config.timeout_s if spec.timeout_s is None else spec.timeout_s,
        )
        (reply,) = replies_to([call], self._connection, terms)
        return call, reply

    def _result(self, call: ModelCall, view: VariableView) -> CreateResult:
        result = to_result(view)
        used, total = result.usage, self._total_usage
        self._last_usage = used
        self._total_usage = RequestUsage(
            total.prompt_tokens + used.prompt_tokens,
            total.completion_tokens + used.completion_tokens,
        )
        self._tokens.learn(call, used.prompt_tokens)
        return result
