"""``ParrotLLM``: raw prompts on a Parrot server, for LangChain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams, LanguageModelInput
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import ConfigDict

from parrot_backend.protocol import VariableView
from parrot_integrations.langchain.annotations import metadata_of
from parrot_integrations.langchain.errors import langchain_errors
from parrot_integrations.langchain.options import CallSpec
from parrot_integrations.langchain.planned import PlannedBatches
from parrot_integrations.langchain.results import (
    DEFAULT_MODEL,
    PROVIDER,
    response_metadata,
    to_usage,
)
from parrot_integrations.planning.annotations import for_batch
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.direct import aresults, replies_to, results
from parrot_integrations.planning.reply import ReplyEvent, ReplyText
from parrot_integrations.planning.submits import Outcome, succeeded

#: Parameters that only chats have.
_CHAT_ONLY = frozenset({"tools", "tool_choice", "parallel_tool_calls", "chat_template_kwargs"})


class ParrotLLM(PlannedBatches, BaseLLM):
    """A text model on a Parrot server: the prompt goes to the model as it is.

        llm = ParrotLLM(base_url="http://127.0.0.1:8642", max_tokens=32)
        llm.invoke("The capital of France is")

    All prompts of a ``batch`` are one submit.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def to_model_calls(
        self, prompt: str, stop: Sequence[str] | None = None, **kwargs: Any
    ) -> list[ModelCall]:
        """Return what would be sent for a prompt: one call, or ``n``. Pure.

        Raises:
            ValueError: A parameter is unknown or wrong.
        """
        return _calls(prompt, self._read_text_call(stop, kwargs))

    # --- what LangChain calls -----------------------------------------------------------------

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Return the texts for prompts, in order; they are sent in one submit."""
        if not return_exceptions:
            with for_batch():
                return super().batch(inputs, config, **kwargs)
        # LangChain's own way makes one failure that of all prompts. Here each is invoked by itself
        # and finds its reply in the batch's submit.
        with for_batch(), self._planned(inputs, config, kwargs):
            return Runnable.batch(self, inputs, config, return_exceptions=True, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Return the texts for prompts, in order; they are sent in one submit."""
        if not return_exceptions:
            with for_batch():
                return await super().abatch(inputs, config, **kwargs)
        # LangChain's own way makes one failure that of all prompts. Here each is invoked by itself
        # and finds its reply in the batch's submit.
        with for_batch(), self._planned(inputs, config, kwargs):
            return await Runnable.abatch(self, inputs, config, return_exceptions=True, **kwargs)

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        spec = self._read_text_call(stop, kwargs)
        terms = self._terms(spec, metadata_of(run_manager))
        calls = [call for prompt in prompts for call in _calls(prompt, spec)]
        with langchain_errors():
            return _to_result(results(replies_to(calls, self.connection, terms)), spec)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        spec = self._read_text_call(stop, kwargs)
        terms = self._terms(spec, metadata_of(run_manager))
        calls = [call for prompt in prompts for call in _calls(prompt, spec)]
        with langchain_errors():
            return _to_result(await aresults(replies_to(calls, self.connection, terms)), spec)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        spec = self._read_text_call(stop, kwargs, is_streamed=True)
        terms = self._terms(spec, metadata_of(run_manager))
        with langchain_errors():
            (reply,) = replies_to(_calls(prompt, spec), self.connection, terms)
            with closing(reply.events()) as events:
                for event in events:
                    chunk = _to_chunk(event, spec)
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        spec = self._read_text_call(stop, kwargs, is_streamed=True)
        terms = self._terms(spec, metadata_of(run_manager))
        with langchain_errors():
            (reply,) = replies_to(_calls(prompt, spec), self.connection, terms)
            async with aclosing(reply.aevents()) as events:
                async for event in events:
                    chunk = _to_chunk(event, spec)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    @property
    def _llm_type(self) -> str:
        return "parrot-llm"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return self._cache_key()

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = PROVIDER
        params.setdefault("ls_model_name", DEFAULT_MODEL)
        return params

    def _foresee(
        self, given: LanguageModelInput, stop: Sequence[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[CallSpec, list[ModelCall]]:
        spec = self._read_text_call(stop, kwargs)
        return spec, _calls(self._convert_input(given).to_string(), spec)

    def _read_text_call(
        self,
        stop: Sequence[str] | None,
        kwargs: Mapping[str, Any],
        *,
        is_streamed: bool = False,
    ) -> CallSpec:
        chat_only = sorted(_CHAT_ONLY & kwargs.keys())
        if chat_only:
            raise ValueError(f"{', '.join(chat_only)}: only for chats, use ChatParrot")
        spec = self._read_call(stop, kwargs)
        if is_streamed and spec.n > 1:
            raise ValueError("n must be 1 to stream; use invoke or batch")
        return spec


def _calls(prompt: str, spec: CallSpec) -> list[ModelCall]:
    return [ModelCall(options, prompt=prompt) for options in spec.variants()]


def _to_result(outcomes: Sequence[Outcome], spec: CallSpec) -> LLMResult:
    """Return the generations by prompt, and the tokens of all together."""
    views = succeeded(outcomes)
    texts = [Generation(text=view.value or "", generation_info=_info(view, spec)) for view in views]
    usages = [usage for view in views if (usage := to_usage(view.usage)) is not None]
    return LLMResult(
        generations=[texts[i : i + spec.n] for i in range(0, len(texts), spec.n)],
        llm_output={
            "model_name": spec.options.model or DEFAULT_MODEL,
            "token_usage": {
                "input_tokens": sum(usage["input_tokens"] for usage in usages),
                "output_tokens": sum(usage["output_tokens"] for usage in usages),
                "total_tokens": sum(usage["total_tokens"] for usage in usages),
            },
        },
    )


def _to_chunk(event: ReplyEvent, spec: CallSpec) -> GenerationChunk:
    if isinstance(event, VariableView):
        return GenerationChunk(text="", generation_info=_info(event, spec))
    # A text model has no place for reasoning.
    assert isinstance(event, ReplyText)
    return GenerationChunk(text=event.text if event.kind == "text" else "")


def _info(view: VariableView, spec: CallSpec) -> dict[str, Any]:
    usage = to_usage(view.usage)
    more = {} if usage is None else {"usage_metadata": usage}
    return {**response_metadata(view, spec.options.model), **more}
