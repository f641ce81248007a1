"""The life of an orchestration's plan: sent with the first step, given up after the last."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from parrot_integrations.planning.annotations import parrot_session
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.context import current_plan, in_force
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reply import Direct, Reply
from parrot_integrations.semantic_kernel.invocations import (
    Invocation,
    KernelPlans,
    Place,
    at,
    current_place,
    within,
)
from parrot_integrations.settings import ClientSettings

T = TypeVar("T")

_logger = logging.getLogger(__name__)

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
        labels: What its calls are annotated with.
        plan: Its plan; one without calls is not sent.
        root: Has the invocations of functions that were foreseen.
    """

    def __init__(self, labels: Labels, plan: Plan, root: Invocation) -> None:
        self._labels = labels
        self._plan = plan if plan.program.steps else None
        #: Where ``ParrotPlanFilter`` finds what need not be planned again.
        self._place = None if self._plan is None else Place(KernelPlans([plan]), root)
        self._outer = current_plan.get()
        #: Steps in progress.
        self._num_steps = 0
        self._is_sent = False
        #: Nobody will ask the plan any more, or what it foresaw is not what happens.
        self._is_useless = False
        self._timer: asyncio.TimerHandle | None = None
        if self._plan is not None:
            # A runtime that was stopped and forgotten takes its actors along, and they this.
            weakref.finalize(self, plan.close).atexit = False

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> Reply | None:
        """Return the reply to a call that runs already; see ``context.PlanInForce``."""
        place = current_place.get()
        if self._plan is not None and place is not None and place.invocation is not None:
            reply = self._plan.claim(call, endpoint=endpoint, direct=direct)
            if reply is not None:
                return reply
            self._plan.miss()
            self._is_useless = True
            if self._num_steps <= 1:
                self.close()
        if self._outer is None:
            return None
        return self._outer.claim(call, endpoint=endpoint, direct=direct)

    async def step(self, stage: str, items: AsyncIterable[T]) -> AsyncGenerator[T, None]:
        """Yield what a step makes, with the run in force while each item is made."""
        self._begin()
        try:
            async with aclosing(within(lambda: self.scope(stage), aiter(items))) as made:
                async for item in made:
                    yield item
        finally:
            self._finish()

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
        with in_force(self), annotation, at(self._place or current_place.get()):
            yield

    def end(self) -> None:
        """Take in that the orchestration has its result, has failed, or was cancelled.

        Steps in progress go on, as they do without a plan, and so does what they wait for.
        """
        self._is_useless = True
        if not self._num_steps:
            self.close()

    def close(self) -> None:
        """Give up what is left of the plan."""
        self._stop_timer()
        if self._plan is not None:
            self._plan.close()

    def _begin(self) -> None:
        self._num_steps += 1
        self._stop_timer()
        if self._plan is not None and not self._is_sent:
            self._is_sent = True
            self._plan.start()

    def _finish(self) -> None:
        self._num_steps -= 1
        if self._num_steps or self._plan is None:
            return
        if self._is_useless:
            self.close()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(PATIENCE_S, _lose_patience, weakref.ref(self))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _lose_patience(run: weakref.ref[OrchestrationRun]) -> None:
    if (found := run()) is not None:
        _logger.debug("an orchestration does not go on; its plan is given up")
        found.close()
