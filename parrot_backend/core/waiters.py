"""Waiters: who waits for which variable, and what they are told."""

from __future__ import annotations

from collections.abc import Callable

from parrot_backend.core.chat import TokenLogprob
from parrot_backend.core.commands import AnswerWaiter, Command, ResetStream, StreamText
from parrot_backend.core.events import RequestFinished
from parrot_backend.core.ids import VariableId, WaiterId
from parrot_backend.core.variable import Variable


class Waiters:
    """Tells waiters of their variables; each gets exactly one answer.

    Args:
        emit: Takes commands.
    """

    def __init__(self, emit: Callable[[Command], None]) -> None:
        self._emit = emit
        self._waiting_for: dict[WaiterId, VariableId] = {}

    def attach(self, variable: Variable, waiter: WaiterId, *, is_streaming: bool) -> None:
        """Let somebody wait for a variable; a settled one is answered at once."""
        if variable.is_settled:
            self._answer(variable, waiter)
            return
        for partial in (variable.partial_reasoning, variable.partial):
            if is_streaming and partial:
                is_reasoning = partial is variable.partial_reasoning
                self._emit(StreamText(waiter, "".join(partial), is_reasoning))
        variable.waiters[waiter] = is_streaming
        self._waiting_for[waiter] = variable.id

    def detach(self, waiter: WaiterId) -> VariableId | None:
        """Let somebody go; return what they waited for, or None if they were answered."""
        return self._waiting_for.pop(waiter, None)

    def answer_all(self, variable: Variable) -> None:
        """Answer whoever waits for a variable that is settled."""
        for waiter in variable.waiters:
            self._answer(variable, waiter)
        variable.waiters.clear()

    def tell(
        self,
        variable: Variable,
        text: str,
        *,
        is_reasoning: bool,
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> None:
        """Give more text to whoever streams a variable."""
        for waiter, is_streaming in variable.waiters.items():
            if is_streaming and text:
                self._emit(StreamText(waiter, text, is_reasoning, logprobs))

    def tell_late(self, variable: Variable, event: RequestFinished) -> None:
        """Give those who came to stream a quiet request its text, if it was not told before."""
        if not variable.partial and not variable.partial_reasoning:
            self.tell(variable, event.details.reasoning or "", is_reasoning=True)
            self.tell(variable, event.text, is_reasoning=False)

    def reset(self, variable: Variable) -> None:
        """Tell whoever streams a variable to forget its text."""
        for waiter, is_streaming in variable.waiters.items():
            if is_streaming:
                self._emit(ResetStream(waiter))

    def _answer(self, variable: Variable, waiter: WaiterId) -> None:
        self._waiting_for.pop(waiter, None)
        self._emit(
            AnswerWaiter(
                waiter,
                variable.id,
                variable.state,
                variable.value,
                variable.failure,
                variable.usage,
                variable.finish_reason,
                variable.details,
            )
        )
