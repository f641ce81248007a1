"""``ParrotLLM``: the provider that MetaGPT's roles talk to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Any, ClassVar

# Not `metagpt.provider` first: it and `metagpt.roles` import each other.
import metagpt.roles  # noqa: F401
from metagpt.configs.llm_config import LLMConfig
from metagpt.const import USE_CONFIG_TIMEOUT
from metagpt.logs import log_llm_stream
from metagpt.provider.openai_api import OpenAILLM
from openai import AsyncOpenAI
from openai.types import CompletionUsage
from openai.types.completion_usage import PromptTokensDetails

from parrot_backend.protocol import VariableView
from parrot_integrations.metagpt.errors import framework_errors
from parrot_integrations.metagpt.ordering import shared_first
from parrot_integrations.metagpt.runs import current_run, name_of_call
from parrot_integrations.planning.annotations import annotated, default_perf, to_criteria
from parrot_integrations.planning.calls import CallOptions, ChatMessage, ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.direct import replies_to
from parrot_integrations.planning.options import to_sampling
from parrot_integrations.planning.reply import ReplyText
from parrot_integrations.planning.submits import Terms
from parrot_integrations.settings import ClientSettings, resolve_settings

#: Stands for the server's own default model, where a name must be given.
DEFAULT_MODEL = "default"
#: As often as OpenAI's client tries by itself; MetaGPT's own, slower retry comes on top.
_MAX_ATTEMPTS = 3


class ParrotLLM(OpenAILLM):  # type: ignore[misc] # MetaGPT is not typed
    """A provider for a Parrot server, made from the same section of the configuration as OpenAI's.

    Calls of a team that runs go into one session of the server, with references to what earlier
    calls generated. Others, and what is not text (images, functions), go as OpenAI's provider sends
    them.

    Attributes:
        extra: Parameters of every call that MetaGPT has no setting for, in OpenAI's words.
        shares_first: See ``install``.
    """

    extra: ClassVar[Mapping[str, Any]] = {}
    shares_first: ClassVar[bool] = False

    def __init__(self, config: LLMConfig) -> None:
        super().__init__(config)
        found = resolve_settings(config.base_url, config.api_key)
        settings = ClientSettings(found.base_url, found.api_key, max_attempts=_MAX_ATTEMPTS)
        self._connection = Connection(settings)

    def _init_client(self) -> None:
        """Note the model; MetaGPT makes providers often, and their clients are seldom needed."""
        self.model = self.config.model
        self.pricing_plan = self.config.pricing_plan or self.model

    @cached_property
    def aclient(self) -> AsyncOpenAI:
        """Return OpenAI's client, for what the provider does not do itself."""
        return AsyncOpenAI(**self._make_client_kwargs())

    async def acompletion_text(
        self,
        messages: list[dict[str, Any]],
        stream: bool = False,
        timeout: int = USE_CONFIG_TIMEOUT,
    ) -> str:
        """Return the reply to a chat; MetaGPT's own policy tries again when a connection fails."""
        if not all(isinstance(message.get("content"), str) for message in messages):
            text: str = await super().acompletion_text(messages, stream=stream, timeout=timeout)
            return text
        given = {**self._cons_kwargs(messages, timeout=timeout), **self.extra}
        call = ModelCall(_to_options(given), messages=self._ordered(messages))
        terms = _to_terms(given["timeout"])
        policy = OpenAILLM.acompletion_text.retry.copy()
        run = current_run()
        try:
            view: VariableView = await policy(self._reply, call, terms, stream)
        except BaseException:
            if run is not None:
                run.num_failed += 1
            raise
        if run is not None:
            run.num_calls += 1
        self._note_usage(view)
        return view.value or ""

    def _ordered(self, messages: Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
        chat = tuple(ChatMessage(message["role"], message["content"]) for message in messages)
        return shared_first(chat) if self.shares_first else chat

    async def _reply(self, call: ModelCall, terms: Terms, stream: bool) -> VariableView:
        run = current_run()
        with framework_errors():
            if run is None:
                (direct,) = replies_to([call], self._connection, terms)
                if not stream:
                    return await direct.aresult()
                events = direct.aevents()
            else:
                session = run.session(self._connection)
                if not stream:
                    return await session.generate(call, name_of_call(), terms)
                events = session.stream(call, name_of_call(), terms)
            async with aclosing(events):
                async for event in events:
                    if not isinstance(event, ReplyText):
                        log_llm_stream("\n")
                        return event
                    if event.kind == "text":
                        log_llm_stream(event.text)
        raise AssertionError("a stream ends with its variable")

    def _note_usage(self, view: VariableView) -> None:
        if view.usage is not None:
            prompt, completion = view.usage.prompt_tokens, view.usage.completion_tokens
            self._update_costs(
                CompletionUsage(
                    prompt_tokens=prompt,
                    completion_tokens=completion,
                    total_tokens=prompt + completion,
                    prompt_tokens_details=PromptTokensDetails(
                        cached_tokens=view.usage.cached_tokens
                    ),
                )
            )


def _to_options(given: Mapping[str, Any]) -> CallOptions:
    model = given["model"]
    return CallOptions(None if model == DEFAULT_MODEL else model, to_sampling(given))


def _to_terms(timeout_s: float) -> Terms:
    said = annotated()
    return Terms(
        app=said.app or "metagpt",
        metadata=said.labels(),
        stage=said.call_stage,
        criteria=to_criteria(said.perf or default_perf()),
        timeout_s=timeout_s,
    )
