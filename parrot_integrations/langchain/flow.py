"""Control flow that the server can follow: steps over lists and conditions from a closed set.

Each is an ordinary runnable, so a chain with them runs anywhere; in a planned chain the server
decides by the generated values themselves, without a way through the client:

    points = outline | llm | StrOutputParser() | split_lines()
    chain = points | expand.map() | join_list() | combine | llm
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable
from langchain_core.runnables.config import patch_config
from langchain_core.runnables.utils import Input
from pydantic import ConfigDict, Field

from parrot_backend import closed_set
from parrot_backend.protocol import (
    ConditionOp,
    JoinListTransform,
    JsonListTransform,
    SplitLinesTransform,
    SplitListTransform,
)
from parrot_integrations.planning.builder import Question
from parrot_integrations.planning.rules import transformed

#: What holds a text: a text, or a message of a model.
TextLike = str | BaseMessage


class ListSplitter(RunnableSerializable[TextLike, list[str]]):
    """Splits a text into a list; made by :func:`split_lines` and its like.

    Attributes:
        rule: What the server does in its place.
    """

    rule: SplitLinesTransform | SplitListTransform | JsonListTransform

    def invoke(
        self, input: TextLike, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[str]:
        """Return the items.

        Raises:
            ValueError: There is no list in the text.
        """
        return self._call_with_config(self._split, input, config, **kwargs)

    def _split(self, text: TextLike) -> list[str]:
        return closed_set.list_items(transformed(text_of(text), (self.rule,)))


class ListJoiner(RunnableSerializable[Sequence[TextLike], str]):
    """Joins a list to one text; made by :func:`join_list`.

    Attributes:
        rule: What the server does in its place.
    """

    rule: JoinListTransform

    def invoke(
        self, input: Sequence[TextLike], config: RunnableConfig | None = None, **kwargs: Any
    ) -> str:
        """Return the items in one text."""
        return self._call_with_config(self._join, input, config, **kwargs)

    def _join(self, items: Sequence[TextLike]) -> str:
        texts = [text_of(item) for item in items]
        return closed_set.join_list(texts, self.rule.separator, self.rule.item)


class TextCondition(RunnableSerializable[Any, bool]):
    """Tells whether something holds of a text; made by :func:`if_contains` and its like.

    Attributes:
        op: What is asked; see ``closed_set.holds``.
        text: What the value is compared with.
        ignore_case: Whether case matters.
        negate: Whether the answer is turned round.
        key: Which item of a mapping is asked; None asks the value itself.
    """

    op: ConditionOp
    text: str = ""
    ignore_case: bool = False
    negate: bool = False
    key: str | None = None

    @property
    def question(self) -> Question:
        """The condition without the value."""
        return Question(self.op, self.text, self.ignore_case, self.negate)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> bool:
        """Return the answer."""
        return self._call_with_config(self.holds, input, config, **kwargs)

    def holds(self, value: Any) -> bool:
        """Return the answer, without callbacks."""
        text = text_of(value if self.key is None else value[self.key])
        return closed_set.holds(
            self.op, text, self.text, ignore_case=self.ignore_case, negate=self.negate
        )

    def __invert__(self) -> TextCondition:
        """Return the opposite condition."""
        return self.model_copy(update={"negate": not self.negate})


class RepeatUntil(RunnableSerializable[Any, str]):
    """Repeats a chain on its own result; made by :func:`repeat_until`.

    With a text, each round gets the text of the round before. With a mapping, each round gets the
    mapping with what the rounds before have returned in it.

    Attributes:
        body: One round.
        until: Ends the loop when it holds after a round.
        max_rounds: Ends the loop in any case.
        result: Which item of a mapping is returned.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    body: Runnable[Any, Any]
    until: TextCondition
    max_rounds: int = Field(ge=1, le=64)
    result: str | None = None

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        """Return the text of the last round."""
        return self._call_with_config(self._run, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        """Return the text of the last round."""
        return await self._acall_with_config(self._arun, input, config, **kwargs)

    def _run(
        self, state: Any, run_manager: CallbackManagerForChainRun, config: RunnableConfig
    ) -> str:
        state = self._initial(state)
        for number in range(self.max_rounds):
            child = patch_config(config, callbacks=run_manager.get_child(f"round:{number + 1}"))
            state = self._after(state, self.body.invoke(state, child))
            if self.until.holds(state):
                break
        return self._result(state)

    async def _arun(
        self, state: Any, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
    ) -> str:
        state = self._initial(state)
        for number in range(self.max_rounds):
            child = patch_config(config, callbacks=run_manager.get_child(f"round:{number + 1}"))
            state = self._after(state, await self.body.ainvoke(state, child))
            if self.until.holds(state):
                break
        return self._result(state)

    def _initial(self, given: Any) -> Any:
        """Return what is given with texts in place of messages, as after each round."""
        if self.result is None:
            return _without_message(given)
        return {key: _without_message(value) for key, value in given.items()}

    def _after(self, state: Any, made: Any) -> Any:
        if self.result is None:
            return text_of(made)
        return {**state, **{key: text_of(value) for key, value in made.items()}}

    def _result(self, state: Any) -> str:
        return text_of(state if self.result is None else state[self.result])


def split_lines() -> ListSplitter:
    """Return a step that makes a list of a text's lines, without bullets, numbers, blank ones."""
    return ListSplitter(rule=SplitLinesTransform())


def split_list(separator: str) -> ListSplitter:
    """Return a step that makes a list of the pieces between separators, without empty ones."""
    return ListSplitter(rule=SplitListTransform(separator=separator))


def json_list() -> ListSplitter:
    """Return a step that makes a list of the first JSON array in a text."""
    return ListSplitter(rule=JsonListTransform())


def join_list(separator: str = "\n\n", item: str = "{}") -> ListJoiner:
    """Return a step that joins a list to one text; ``{}`` in ``item`` is the place of each."""
    if "{}" not in item:
        raise ValueError("item needs {} in the place of each item")
    return ListJoiner(rule=JoinListTransform(separator=separator, item=item))


def if_contains(text: str, *, key: str | None = None, ignore_case: bool = False) -> TextCondition:
    """Return the condition that a text contains another."""
    return TextCondition(op="contains", text=text, key=key, ignore_case=ignore_case)


def if_equals(text: str, *, key: str | None = None, ignore_case: bool = False) -> TextCondition:
    """Return the condition that a text is another."""
    return TextCondition(op="equals", text=text, key=key, ignore_case=ignore_case)


def if_starts_with(
    text: str, *, key: str | None = None, ignore_case: bool = False
) -> TextCondition:
    """Return the condition that a text starts with another."""
    return TextCondition(op="starts_with", text=text, key=key, ignore_case=ignore_case)


def if_ends_with(text: str, *, key: str | None = None, ignore_case: bool = False) -> TextCondition:
    """Return the condition that a text ends with another."""
    return TextCondition(op="ends_with", text=text, key=key, ignore_case=ignore_case)


def if_empty(*, key: str | None = None) -> TextCondition:
    """Return the condition that a text is nothing but white space."""
    return TextCondition(op="is_empty", key=key)


def repeat_until(
    body: RunnableLike[Input, Any],
    until: TextCondition,
    *,
    max_rounds: int,
    result: str | None = None,
) -> RepeatUntil:
    """Return a step that repeats a chain on its own result until a condition holds.

    Args:
        body: One round: text to text, or mapping to mapping.
        until: Asked of the state after each round.
        max_rounds: Bound.
        result: For mappings, the item that is returned at the end.
    """
    return RepeatUntil(
        body=coerce_to_runnable(body), until=until, max_rounds=max_rounds, result=result
    )


def _without_message(value: Any) -> Any:
    return text_of(value) if isinstance(value, BaseMessage) else value


def text_of(value: Any) -> str:
    """Return the text of a text or message.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(value, BaseMessage):
        return str(value.text)
    if isinstance(value, str):
        return value
    raise TypeError(f"expected a text or a message, got {type(value).__name__}")
