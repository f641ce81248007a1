"""The life of an orchestration's plan: sent with the first step, given up after the last."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from parrot_integrations.planning.annotations import parrot_session
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.context import current_plan, in_force
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reply import Direct, Reply
from parrot_integrations.settings import ClientSettings

T = TypeVar("T")

_logger = logging.getLogger(__name__)
_END: Any = object()

#: So long may a program take between two steps of an orchestration (in a callback, for example)
#: before its plan is given up: the runtime may have been stopped, and nobody is told of that.
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Labels:
    """What the calls of an orchestration are annotated with, beside the stage.

    Attributes:
        app: Name of the application, if the caller says.
        session: What the calls belong to.
        orchestration: The orchestration's name.
    """

    app: str | None
    session: str
    orchestration: str


class EndEvent(asyncio.Event):
    """An event that tells when it is set, without a task that waits for it."""

    def __init__(self, ended: Callable[[], None]) -> None:
        super().__init__()
        self._ended = ended

    def set(self) -> None:
        """Set the event."""
        super().set()
        self._ended()


class OrchestrationRun:
    """One invocation of an orchestration, in force in its steps; belongs to one event loop.

    Args:
        plan: Its plan, if it has one.
        labels: What its calls are annotated with.
    """

    def __init__(self, plan: Plan | None, labels: Labels) -> None:
        self._plan = plan
        self._labels = labels
        self._outer = current_plan.get()
        #: The steps in progress, each with the task that reads it.
        self._steps: dict[object, asyncio.Task[Any] | None] = {}
        self._is_sent = False
        #: Nobody will ask the plan any more, or what it foresaw is not what happens.
        self._is_useless = False
        self._timer: asyncio.TimerHandle | None = None
        if plan is not None:
            # A runtime that was stopped and forgotten takes its actors along, and they this.
            weakref.finalize(self, plan.close).atexit = False

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> Reply | None:
        """Return the reply to a call that runs already; see ``context.PlanInForce``."""
        if self._plan is not None:
            reply = self._plan.claim(call, endpoint=endpoint, direct=direct)
            if reply is not None:
                return reply
            self._plan.miss()
            self._is_useless = True
            if len(self._steps) <= 1:
                self.close()
        if self._outer is None:
            return None
        return self._outer.claim(call, endpoint=endpoint, direct=direct)

    async def step(self, stage: str, items: AsyncIterable[T]) -> AsyncGenerator[T, None]:
        """Yield what a step makes, with the run in force while each item is made."""
        iterator = aiter(items)
        key = object()
        self._begin(key)
        try:
            while True:
                with self.scope(stage):
                    item = await anext(iterator, _END)
                if item is _END:
                    return
                yield item
        finally:
            try:
                if isinstance(iterator, AsyncGenerator):
                    await iterator.aclose()
            finally:
                self._finish(key)

    @contextmanager
    def scope(self, stage: str) -> Iterator[None]:
        """Have the plan and the annotation in force for a block of a step."""
        labels = self._labels
        annotation = parrot_session(
            app=labels.app,
            session=labels.session,
            stage=stage,
            metadata={"orchestration": labels.orchestration},
        )
        with in_force(self), annotation:
            yield

    def end(self) -> None:
        """Take in that the orchestration has its result, has failed, or was cancelled.

        Steps in progress go on, as they do without a plan, and so does what they wait for.
        """
        self._is_useless = True
        task = asyncio.current_task()
        # A step that this very task reads is not in progress: its reader has turned away.
        for key in [key for key, reader in self._steps.items() if reader is task]:
            del self._steps[key]
        if not self._steps:
            self.close()

    def close(self) -> None:
        """Give up what is left of the plan."""
        self._stop_timer()
        if self._plan is not None:
            self._plan.close()

    def _begin(self, key: object) -> None:
        self._steps[key] = asyncio.current_task()
        self._stop_timer()
        if self._plan is not None and not self._is_sent:
            self._is_sent = True
            self._plan.start()

    def _finish(self, key: object) -> None:
        self._steps.pop(key, None)
        if self._steps or self._plan is None:
            return
        if self._is_useless:
            self.close()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(PATIENCE_S, self._lose_patience)

    def _lose_patience(self) -> None:
        _logger.debug("an orchestration does not go on; its plan is given up")
        self.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
