"""LangChain's entry points of a chat model: what is done before the framework takes over.

They remember the config's metadata, which LangChain does not pass to streams, and they plan a batch
as one submit. Everything else is left to the framework.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig, ensure_config
from pydantic import Field

from parrot_backend.protocol import Scalar
from parrot_integrations.errors import NotConfigured
from parrot_integrations.langchain.annotations import (
    abegin_with_config,
    begin_with_config,
    with_config,
)
from parrot_integrations.langchain.batches import planned_batch
from parrot_integrations.langchain.fields import ParrotFields
from parrot_integrations.langchain.messages import to_messages
from parrot_integrations.langchain.options import CallSpec
from parrot_integrations.planning.annotations import for_batch
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.submits import Terms


class PlannedBatches(ParrotFields):
    """A model that can tell which calls an input will make, and so plan a batch of them."""

    def _foresee(
        self, given: LanguageModelInput, stop: Sequence[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[CallSpec, list[ModelCall]]:
        """Return the calls that an input will make."""
        raise NotImplementedError

    def _planned(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None,
        kwargs: Mapping[str, Any],
    ) -> AbstractContextManager[None]:
        """Plan a batch, unless some of its calls may not be made, or not all at once."""
        configs = config if isinstance(config, Sequence) else [config] * len(inputs)
        is_limited = any((found or {}).get("max_concurrency") for found in configs)
        is_limited = is_limited or getattr(self, "rate_limiter", None) is not None
        if len(inputs) < 2 or is_limited or self._has_cache():
            return nullcontext()
        try:
            connection = self.connection
        except NotConfigured:
            # Each input gets the error for itself.
            return nullcontext()
        return planned_batch(self._foreseen(inputs, configs, kwargs), connection)

    def _has_cache(self) -> bool:
        cache = getattr(self, "cache", None)
        return cache is not False and (isinstance(cache, BaseCache) or get_llm_cache() is not None)

    def _foreseen(
        self,
        inputs: Sequence[LanguageModelInput],
        configs: Sequence[RunnableConfig | None],
        kwargs: Mapping[str, Any],
    ) -> list[tuple[ModelCall, Terms]]:
        """Return the calls that the inputs will make; one with an error tells that itself."""
        foreseen: list[tuple[ModelCall, Terms]] = []
        options = dict(kwargs)
        stop = options.pop("stop", None)
        for given, config in zip(inputs, configs, strict=False):
            try:
                spec, calls = self._foresee(given, stop, options)
                terms = self._terms(spec, ensure_config(config).get("metadata"))
            except (ValueError, NotImplementedError):
                continue
            foreseen += [(call, terms) for call in calls]
        return foreseen


class PlannedChatModel(PlannedBatches, BaseChatModel):
    """What ``ChatParrot`` does before LangChain's own machinery."""

    chat_template_kwargs: dict[str, Scalar] = Field(default_factory=dict)
    """Further arguments of the model's chat template, for example ``enable_thinking``."""

    def to_model_calls(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None = None, **kwargs: Any
    ) -> list[ModelCall]:
        """Return what would be sent for a chat: one call, or ``n``. Pure.

        A planner calls this with markers in the texts, and compares when the chat is there.

        Raises:
            ValueError: A parameter is unknown or wrong, or a message is not text.
        """
        return self._calls(messages, self._read_call(stop, kwargs))

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Return the reply to a chat."""
        with with_config(config):
            return super().invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Return the reply to a chat."""
        with with_config(config):
            return await super().ainvoke(input, config, stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Yield the reply to a chat as it is generated."""
        yield from begin_with_config(config, super().stream(input, config, stop=stop, **kwargs))

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Yield the reply to a chat as it is generated."""
        chunks = super().astream(input, config, stop=stop, **kwargs)
        async for chunk in abegin_with_config(config, chunks):
            yield chunk

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Return the replies to chats, in order; they are sent in one submit."""
        with for_batch(), self._planned(inputs, config, kwargs):
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Return the replies to chats, in order; they are sent in one submit."""
        with for_batch(), self._planned(inputs, config, kwargs):
            return await super().abatch(
                inputs, config, return_exceptions=return_exceptions, **kwargs
            )

    def _calls(self, messages: Sequence[BaseMessage], spec: CallSpec) -> list[ModelCall]:
        chat = to_messages(messages)
        return [ModelCall(options, messages=chat) for options in spec.variants()]

    def _foresee(
        self, given: LanguageModelInput, stop: Sequence[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[CallSpec, list[ModelCall]]:
        spec = self._read_call(stop, kwargs)
        return spec, self._calls(self._convert_input(given).to_messages(), spec)

    def _output_params(self) -> dict[str, Any]:
        params = super()._output_params()
        if self.chat_template_kwargs:
            params["chat_template_kwargs"] = self.chat_template_kwargs
        return params
