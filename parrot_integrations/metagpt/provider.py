"""``ParrotLLM``: the provider that MetaGPT's roles talk to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import replace
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
from openai.types.chat import ChatCompletion
from openai.types.completion_usage import PromptTokensDetails

from parrot_backend.protocol import VariableView
from parrot_integrations.criteria import UNSTATED, Criteria
from parrot_integrations.metagpt.endpoint import DEFAULT_MODEL, EndpointClient
from parrot_integrations.metagpt.errors import framework_errors
from parrot_integrations.metagpt.ordering import shared_first
from parrot_integrations.metagpt.runs import current_run, name_of_call
from parrot_integrations.metagpt.silence import unless_silent
from parrot_integrations.planning.annotations import annotated, default_perf, to_criteria
from parrot_integrations.planning.calls import CallOptions, ChatMessage, ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.direct import replies_to
from parrot_integrations.planning.options import to_sampling
from parrot_integrations.planning.reply import ReplyEvent, ReplyText
from parrot_integrations.planning.submits import Terms
from parrot_integrations.settings import ClientSettings, resolve_settings

_APP = "metagpt"
_ROLES = frozenset({"system", "user", "assistant"})
#: The endpoint takes so many further labels.
_MAX_METADATA = 60
#: As often as OpenAI's client tries by itself; MetaGPT's own, slower retry comes on top.
_MAX_ATTEMPTS = 3


class ParrotLLM(OpenAILLM):  # type: ignore[misc] # MetaGPT is not typed
    """A provider for a Parrot server, made from the same section of the configuration as OpenAI's.

    Calls of a team that runs go into one session of the server, with references to what earlier
    calls generated; others are sent by themselves. What is more than texts of the common roles
    (images, functions, names) goes as OpenAI's provider sends it, into the same session.

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
        return EndpointClient(self._beside, **self._make_client_kwargs())

    async def acompletion_text(
        self,
        messages: list[dict[str, Any]],
        stream: bool = False,
        timeout: int = USE_CONFIG_TIMEOUT,
    ) -> str:
        """Return the reply to a chat; MetaGPT's own policy tries again when a connection fails."""
        with _counted():
            if not _is_plain(messages):
                text: str = await super().acompletion_text(messages, stream, timeout)
                return text
            given = {**self._cons_kwargs(messages, timeout=timeout), **self.extra}
            call = ModelCall(_to_options(given), messages=self._ordered(messages))
            policy = OpenAILLM.acompletion_text.retry.copy()
            terms = _to_terms(given["timeout"])
            view: VariableView = await policy(self._reply, call, terms, stream)
        self._note_usage(view)
        return view.value or ""

    def _ordered(self, messages: Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
        chat = tuple(ChatMessage(message["role"], message["content"]) for message in messages)
        return shared_first(chat) if self.shares_first else chat

    async def _reply(self, call: ModelCall, terms: Terms, stream: bool) -> VariableView:
        with framework_errors():
            if not stream:
                return await self._whole(call, terms)
            async with aclosing(self._events(call, terms)) as heard:
                async for event in heard:
                    if not isinstance(event, ReplyText):
                        log_llm_stream("\n")
                        return event
                    if event.kind == "text":
                        log_llm_stream(event.text)
        raise AssertionError("a stream ends with its variable")

    async def _whole(self, call: ModelCall, terms: Terms) -> VariableView:
        run = current_run()
        if run is not None:
            return await run.session(self._connection).generate(call, name_of_call(), terms)
        (reply,) = replies_to([call], self._connection, terms)
        return await reply.aresult()

    def _events(self, call: ModelCall, terms: Terms) -> AsyncGenerator[ReplyEvent, None]:
        # As with OpenAI's client: a stream may take long, as long as it gets on.
        silence_s, terms = terms.timeout_s, replace(terms, timeout_s=None)
        run = current_run()
        if run is not None:
            events = run.session(self._connection).stream(call, name_of_call(), terms)
        else:
            (reply,) = replies_to([call], self._connection, terms)
            events = reply.aevents()
        return events if silence_s is None else unless_silent(events, silence_s)

    # --- MetaGPT's own way: OpenAI's API on the same server -----------------------------------

    async def acompletion(
        self, messages: list[dict[str, Any]], timeout: int = USE_CONFIG_TIMEOUT
    ) -> ChatCompletion:
        """Return the reply to a chat as OpenAI's API words it."""
        with _counted():
            reply: ChatCompletion = await super().acompletion(messages, timeout)
        return reply

    async def _achat_completion_function(
        self, messages: list[dict[str, Any]], timeout: int = USE_CONFIG_TIMEOUT, **given: Any
    ) -> ChatCompletion:
        with _counted():
            reply: ChatCompletion = await super()._achat_completion_function(
                messages, timeout, **given
            )
        return reply

    async def _beside(self) -> Mapping[str, Any]:
        """Return what goes beside a call's own parameters, as the OpenAI endpoint takes it."""
        said, run = annotated(), current_run()
        hints: dict[str, Any] = {
            "app": said.app or _APP,
            "session": said.session,
            "stage": said.stage,
            "perf": _to_words(to_criteria(said.perf or default_perf())),
            "metadata": dict(list(said.metadata.items())[:_MAX_METADATA]),
        }
        if run is not None:
            with framework_errors():
                terms = _to_terms(self.get_timeout(USE_CONFIG_TIMEOUT))
                hints["session"] = await run.session(self._connection).open_id(terms)
        return {**self.extra, "parrot": hints}

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


def _is_plain(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a chat is nothing but texts of the common roles."""
    return bool(messages) and all(
        message.keys() == {"role", "content"}
        and message["role"] in _ROLES
        and isinstance(message["content"], str)
        for message in messages
    )


def _counted() -> AbstractContextManager[None]:
    run = current_run()
    return nullcontext() if run is None else run.counting()


def _to_options(given: Mapping[str, Any]) -> CallOptions:
    model = given["model"]
    return CallOptions(None if model == DEFAULT_MODEL else model, to_sampling(given))


def _to_words(criteria: Criteria) -> object:
    word = None if criteria == UNSTATED else criteria.kind
    return criteria.model_dump(exclude={"kind"}, exclude_none=True) or word


def _to_terms(timeout_s: float) -> Terms:
    said = annotated()
    return Terms(
        app=said.app or _APP,
        metadata=said.labels(),
        stage=said.call_stage,
        criteria=to_criteria(said.perf or default_perf()),
        timeout_s=timeout_s,
    )
