"""What a run of a chain comes to: its result, its callbacks' events, its effects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue

_VARIABLE = re.compile(r"; [^ ;\]]+\]")


def plain(value: Any) -> Any:
    """A value without what differs between any two runs: ids, token counts, times."""
    if isinstance(value, BaseMessage):
        kind = value.type.removesuffix("MessageChunk").lower()
        return ("message", kind, value.text, tuple(map(repr, getattr(value, "tool_calls", ()))))
    if isinstance(value, PromptValue):
        return tuple(plain(message) for message in value.to_messages())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Document):
        return ("document", value.page_content)
    if value is None or isinstance(value, str | int | float | bool):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, BaseException):
        return failure(value)
    return type(value).__name__


def failure(error: BaseException) -> tuple[str, str]:
    if isinstance(error, RecursionError):
        # LangChain's completion models run into it when max_concurrency is inherited.
        return ("RecursionError", "")
    # The name of the variable in a message is that of the plan, or numbers the calls of a batch.
    return (type(error).__name__, _VARIABLE.sub("]", str(error)))


class Recorder(BaseCallbackHandler):
    """Notes every event but tokens, as where it is in the tree of runs.

    Args:
        has_data: Note what goes in and comes out, too.
    """

    run_inline = True

    def __init__(self, *, has_data: bool = True) -> None:
        self.has_data = has_data
        self._paths: dict[UUID, tuple[str, ...]] = {}
        self._events: Counter[str] = Counter()

    @property
    def events(self) -> Counter[str]:
        return Counter(self._events)

    def _begin(self, kind: str, data: Any, run_id: UUID, about: Mapping[str, Any]) -> None:
        parent = about.get("parent_run_id")
        path = self._paths.get(parent, ("?",)) if parent else ()
        self._paths[run_id] = (*path, str(about.get("name")))
        labels = {k: v for k, v in (about.get("metadata") or {}).items() if not k.startswith("ls_")}
        self._note(kind, run_id, (sorted(about.get("tags") or ()), labels, self._data(data)))

    def _end(self, kind: str, data: Any, run_id: UUID) -> None:
        self._note(kind, run_id, self._data(data))

    def _note(self, kind: str, run_id: UUID, data: Any) -> None:
        self._events[repr((kind, self._paths.get(run_id), data))] += 1

    def _data(self, data: Any) -> Any:
        return plain(data) if self.has_data else None

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **about: Any) -> None:
        self._begin("chain", inputs, run_id, about)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **about: Any) -> None:
        self._end("chain end", outputs, run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **about: Any) -> None:
        self._note("chain error", run_id, failure(error))

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, **about: Any
    ) -> None:
        self._begin("chat", messages, run_id, about)

    def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: UUID, **about: Any) -> None:
        self._begin("llm", prompts, run_id, about)

    def on_llm_end(self, response: Any, *, run_id: UUID, **about: Any) -> None:
        self._end("llm end", [[g.text for g in some] for some in response.generations], run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **about: Any) -> None:
        self._note("llm error", run_id, failure(error))

    def on_retry(self, retry_state: Any, *, run_id: UUID, **about: Any) -> None:
        self._note("retry", run_id, None)

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, **about: Any
    ) -> None:
        self._begin("retriever", query, run_id, about)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **about: Any) -> None:
        self._end("retriever end", documents, run_id)
