"""``ChatParrot``: chat models that a Parrot server runs, for LangChain and LangGraph."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict

from parrot_integrations.langchain.annotations import metadata_of
from parrot_integrations.langchain.errors import langchain_errors
from parrot_integrations.langchain.options import (
    CallSpec,
    ToolLike,
    to_openai_tools,
)
from parrot_integrations.langchain.planned import PlannedChatModel
from parrot_integrations.langchain.results import (
    DEFAULT_MODEL,
    PROVIDER,
    to_ai_message,
    to_last_chunk,
    to_text_chunk,
)
from parrot_integrations.langchain.structured import Schema, structured
from parrot_integrations.planning.direct import aresults, replies_to, results
from parrot_integrations.planning.reply import ReplyEvent, ReplyText
from parrot_integrations.planning.submits import Outcome, succeeded


class ChatParrot(PlannedChatModel):
    """A chat model on a Parrot server.

        llm = ChatParrot(base_url="http://127.0.0.1:8642", temperature=0)
        llm.invoke("Why is the sky blue?").content

    It can be used wherever a chat model can. A ``batch`` is one submit. ``bind_tools`` and
    ``with_structured_output`` work as with other providers.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def bind_tools(
        self,
        tools: Sequence[ToolLike],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model ask for calls of tools.

        Args:
            tools: Functions, tools, pydantic classes, or OpenAI's objects.
            tool_choice: ``auto``, ``none``, ``any`` or ``required``, or the name of one tool.
            strict: Whether schemas are made strict.
            parallel_tool_calls: Whether it may ask for several calls at once.
            kwargs: Further parameters of the calls.
        """
        given = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        given = {name: value for name, value in given.items() if value is not None}
        return self.bind(tools=to_openai_tools(tools, strict), **given, **kwargs)

    def with_structured_output(
        self,
        schema: Schema | None = None,
        *,
        method: str = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a model whose output has a form, parsed.

        Args:
            schema: A pydantic class, a ``TypedDict``, a JSON schema, or OpenAI's object.
            method: ``json_schema`` (the engine generates nothing else), ``json_mode`` (some JSON
                object) or ``function_calling`` (arguments of a tool).
            include_raw: Return ``raw``, ``parsed`` and ``parsing_error`` instead of raising.
            strict: Whether the schema is made strict.
            kwargs: Further parameters of the calls.
        """
        return structured(
            self, schema, method=method, include_raw=include_raw, strict=strict, bound=kwargs
        )

    # --- what LangChain calls -----------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        spec = self._read_call(stop, kwargs)
        terms = self._terms(spec, metadata_of(run_manager))
        with langchain_errors():
            replies = replies_to(self._calls(messages, spec), self.connection, terms)
            return _to_result(results(replies), spec)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        spec = self._read_call(stop, kwargs)
        terms = self._terms(spec, metadata_of(run_manager))
        with langchain_errors():
            replies = replies_to(self._calls(messages, spec), self.connection, terms)
            return _to_result(await aresults(replies), spec)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        spec = self._read_streamed_call(stop, kwargs)
        terms = self._terms(spec, metadata_of(run_manager))
        with langchain_errors():
            (reply,) = replies_to(self._calls(messages, spec), self.connection, terms)
            with closing(reply.events()) as events:
                for event in events:
                    chunk = _to_chunk(event, spec)
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        spec = self._read_streamed_call(stop, kwargs)
        terms = self._terms(spec, metadata_of(run_manager))
        with langchain_errors():
            (reply,) = replies_to(self._calls(messages, spec), self.connection, terms)
            async with aclosing(reply.aevents()) as events:
                async for event in events:
                    chunk = _to_chunk(event, spec)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    @property
    def _llm_type(self) -> str:
        return "parrot-chat"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return self._cache_key()

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = PROVIDER
        params.setdefault("ls_model_name", DEFAULT_MODEL)
        if stop is None and self.stop:
            params["ls_stop"] = self.stop
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        """Say what all models on a Parrot server can do; sizes are known to the server only."""
        return ModelProfile(
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            pdf_inputs=False,
            tool_calling=True,
            tool_choice=True,
            structured_output=True,
        )

    def _read_streamed_call(
        self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]
    ) -> CallSpec:
        spec = self._read_call(stop, kwargs)
        if spec.n > 1:
            raise ValueError("n must be 1 to stream; use invoke or batch")
        return spec


def _to_result(outcomes: Sequence[Outcome], spec: CallSpec) -> ChatResult:
    generations = []
    for view in succeeded(outcomes):
        message = to_ai_message(view, spec.options.model)
        info = {"finish_reason": message.response_metadata["finish_reason"]}
        generations.append(ChatGeneration(message=message, generation_info=info))
    return ChatResult(generations=generations)


def _to_chunk(event: ReplyEvent, spec: CallSpec) -> ChatGenerationChunk:
    if isinstance(event, ReplyText):
        return ChatGenerationChunk(message=to_text_chunk(event))
    return ChatGenerationChunk(message=to_last_chunk(event, spec.options.model))
