"""What random chains are made of besides templates: models, and steps whose effects are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
)

from parrot_integrations.langchain import ChatParrot, ParrotLLM, as_parrot, traceable_step
from tests.integrations.langchain.recording import plain

#: A prompt with this in it fails on the engine.
FAILING = "FAIL-THIS"


class StepFailed(Exception):  # noqa: N818 - as its message
    pass


@dataclass
class Kit:
    """Makes the parts of one chain; two kits make two chains that share nothing.

    Attributes:
        url: The server.
        is_planned: ``as_parrot`` inside the chain is taken seriously.
        effects: How often each step of the client has run on each input.
    """

    url: str
    is_planned: bool
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def chat(self, **fields: Any) -> ChatParrot:
        return ChatParrot(**{"base_url": self.url, "temperature": 0, "max_tokens": 6, **fields})

    def llm(self, **fields: Any) -> ParrotLLM:
        return ParrotLLM(**{"base_url": self.url, "temperature": 0, "max_tokens": 6, **fields})

    def count(self, name: str, value: Any) -> int:
        with self._lock:
            key = (name, repr(plain(value)))
            self.effects[key] += 1
            return self.effects[key]

    def step(self, name: str, function: Callable[[Any], Any]) -> RunnableLambda[Any, Any]:
        """A function of the user."""

        def counted(value: Any) -> Any:
            self.count(name, value)
            return function(value)

        return RunnableLambda(counted, name=name)

    def traceable(self, name: str, function: Callable[[Any], Any]) -> RunnableLambda[Any, Any]:
        return RunnableLambda(traceable_step(lambda value: function(value)), name=name)

    def failing(self, name: str, num_times: int) -> RunnableLambda[Any, Any]:
        """A step that fails the first times that it sees a value."""

        def maybe(value: Any) -> Any:
            if self.count(name, value) <= num_times:
                raise StepFailed(name)
            return value

        return RunnableLambda(maybe, name=name)

    def generator(self) -> Runnable[Any, Any]:
        def shouting(chunks: Iterator[Any]) -> Iterator[str]:
            for chunk in chunks:
                yield str(chunk).replace("a", "A")

        async def ashouting(chunks: Any) -> Any:
            async for chunk in chunks:
                yield str(chunk).replace("a", "A")

        return RunnableGenerator(shouting, ashouting)

    def retriever(self) -> Runnable[Any, Any]:
        return CountingRetriever(kit=self)

    def custom(self) -> Runnable[Any, Any]:
        return Custom(self)

    def listener(self, name: str) -> Callable[[Any], None]:
        return lambda run: (self.count(name, run.name), None)[1]

    def configurable(self) -> Runnable[Any, Any]:
        spec = ConfigurableField(id="max_tokens")
        return self.chat().configurable_fields(max_tokens=spec)

    def alternatives(self) -> Runnable[Any, Any]:
        others: dict[str, Any] = {"long": self.chat(max_tokens=12), "raw": self.llm()}
        spec = ConfigurableField(id="which")
        return self.chat().configurable_alternatives(spec, default_key="short", **others)

    def nested(self, chain: Runnable[Any, Any]) -> Runnable[Any, Any]:
        return as_parrot(chain) if self.is_planned else RunnableBinding(bound=chain)


class CountingRetriever(BaseRetriever):
    kit: Any

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        self.kit.count("retriever", query)
        return [Document(page_content=f"about {query}"), Document(page_content="<more> {x}")]


class Custom(Runnable[Any, Any]):
    """A class of the user's."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        self.kit.count("custom", input)
        return f"custom({input})"
