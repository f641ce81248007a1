"""The actor of the live shell: events in, the core asked, its commands carried out.

``dispatch`` is the one way to the coordinator. It runs to the end without giving up the event loop,
so events are handled one at a time and in order; what happens while commands are carried out is
handled right after. The runtime sleeps between events: waiting is futures and timers, no polling.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from time import perf_counter
from typing import assert_never

from parrot_backend.core.commands import (
    AbortRequest,
    AnswerWaiter,
    CloseEngine,
    Command,
    FillPrefix,
    FollowInstance,
    ReleasePrefixes,
    ResetStream,
    RetainPrefix,
    SetTimer,
    StageRequest,
    StartRequest,
    StreamText,
    UpdateRequest,
)
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.events import (
    Event,
    GraphSubmitted,
    SessionClosed,
    SessionTimer,
    Timer,
    TimerFired,
    TokensGenerated,
    WaitersLeft,
)
from parrot_backend.core.ids import (
    VariableId,
    WaiterId,
    name_of,
)
from parrot_backend.errors import ParrotError
from parrot_backend.server.clock import Clock
from parrot_backend.server.engine_requests import engine_request, fill_request, staged_request
from parrot_backend.server.recorder import EventRecorder
from parrot_backend.server.seams import EngineDriver, RuntimeObserver
from parrot_backend.server.waiting import Inbox, Message

logger = logging.getLogger(__name__)


class Runtime:
    """Drives one coordinator. All methods belong to one event loop."""

    def __init__(
        self,
        coordinator: Coordinator,
        clock: Clock,
        engines: EngineDriver,
        observer: RuntimeObserver,
        recorder: EventRecorder | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._recorder = recorder
        self._clock = clock
        self._engines = engines
        self._observer = observer
        self._inboxes: dict[WaiterId, Inbox] = {}
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        self._pending: deque[Event] = deque()
        self._is_dispatching = False
        self._waiter_numbers = itertools.count(1)
        self._idle = asyncio.Event()

    # --- events ----------------------------------------------------------------------------

    def dispatch(self, event: Event) -> None:
        """Tell the core of an event and carry out what it asks for.

        Raises:
            ParrotError: The core rejected the event; nothing has changed. An event that arises
                while commands are carried out waits its turn, and its rejection is logged.
        """
        if self._is_dispatching:
            self._pending.append(event)
            return
        self._is_dispatching = True
        try:
            self._handle(event)
            while self._pending:
                self._handle_pending(self._pending.popleft())
        finally:
            self._is_dispatching = False
        if self._coordinator.num_active_calls == 0:
            self._idle.set()

    def _handle_pending(self, event: Event) -> None:
        try:
            self._handle(event)
        except ParrotError as exc:
            logger.warning("event %s was rejected: %s", type(event).__name__, exc)

    def _handle(self, event: Event) -> None:
        if isinstance(event, TokensGenerated):
            # Nothing is decided or ends here, and it happens for each token.
            for command in self._ask_core(event):
                self._carry_out(command)
            return
        begin_s = perf_counter()
        commands = self._ask_core(event)
        elapsed_s = perf_counter() - begin_s
        self._observer.decided(elapsed_s)
        if isinstance(event, GraphSubmitted) and event.discovers:
            self._observer.discovered(elapsed_s)
        for ending in self._coordinator.endings:
            self._observer.request_ended(ending)
        if isinstance(event, SessionClosed):
            self._drop_timer(SessionTimer(event.session))
        for command in commands:
            self._carry_out(command)

    def _ask_core(self, event: Event) -> list[Command]:
        now_s = self._clock.now_s()
        commands = self._coordinator.handle(event, now_s)
        if self._recorder is not None:
            self._recorder.record(event, now_s, commands)
        return commands

    # --- commands --------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        match command:
            case StartRequest():
                self._observer.request_started(command.attempt)
                self._engines.start(command.engine, engine_request(command))
            case UpdateRequest(engine, attempt, objective, remaining):
                self._engines.update(engine, attempt, objective, remaining)
            case FillPrefix():
                self._engines.start(command.engine, fill_request(command))
            case StageRequest():
                self._engines.start(command.engine, staged_request(command))
            case RetainPrefix(engine, key, source):
                self._engines.retain(engine, key, source)
            case ReleasePrefixes(engine, keys):
                self._engines.release(engine, keys)
            case AbortRequest(engine, attempt, is_early):
                if not is_early:
                    self._observer.request_aborted(attempt, engine)
                self._engines.abort(engine, attempt)
            case AnswerWaiter():
                self._observer.waiter_answered(command)
                self._deliver(command)
                self._inboxes.pop(command.waiter, None)
            case FollowInstance(waiter, follower, variable):
                self._follow(waiter, follower, variable)
            case StreamText() | ResetStream():
                self._deliver(command)
            case CloseEngine(engine, reason):
                self._engines.give_up(engine, reason)
            case SetTimer(timer, at_s):
                self._set_timer(timer, at_s)
            case _:
                assert_never(command)

    def _deliver(self, message: Message) -> None:
        inbox = self._inboxes.get(message.waiter)
        if inbox is not None:
            inbox.put(message)

    def _follow(self, waiter: WaiterId, follower: WaiterId, variable: VariableId) -> None:
        inbox = self._inboxes.get(waiter)
        if inbox is not None:
            inbox.open[follower] = name_of(variable)
            self._inboxes[follower] = inbox

    def _set_timer(self, timer: Timer, at_s: float) -> None:
        self._drop_timer(timer)
        delay_s = max(0.0, at_s - self._clock.now_s())
        loop = asyncio.get_running_loop()
        self._timers[timer] = loop.call_later(delay_s, self._fire, timer, at_s)

    def _drop_timer(self, timer: Timer) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def _fire(self, timer: Timer, at_s: float) -> None:
        # The loop's clock is coarser than ours: a timer that comes early would find nothing due.
        if self._clock.now_s() < at_s:
            self._set_timer(timer, at_s)
            return
        del self._timers[timer]
        self.dispatch(TimerFired(timer))

    # --- waiters ---------------------------------------------------------------------------

    @property
    def num_waiters(self) -> int:
        """Waiters without an answer."""
        return len(self._inboxes)

    def expect(self, inbox: Inbox, name: str) -> WaiterId:
        """Make a waiter for a variable; its messages go into the inbox."""
        waiter = WaiterId(f"w{next(self._waiter_numbers)}")
        inbox.open[waiter] = name
        self._inboxes[waiter] = inbox
        return waiter

    def leave(self, inbox: Inbox, *, cancel: bool = False) -> None:
        """Stop waiting for what has no answer yet; with ``cancel``, give up what only they wanted.

        Waiters that the core never heard of are forgotten just so. Does nothing the second time.
        """
        waiters = tuple(inbox.open)
        inbox.open.clear()
        for waiter in waiters:
            self._inboxes.pop(waiter, None)
        if waiters:
            self.dispatch(WaitersLeft(waiters, cancel))

    # --- shutdown --------------------------------------------------------------------------

    async def idle(self) -> None:
        """Return when no call can go on by itself; some may wait for a variable to be set."""
        while self._coordinator.num_active_calls:
            self._idle.clear()
            await self._idle.wait()

    def end_all_sessions(self) -> None:
        """Close every session, so that every waiter is answered, and stop all timers."""
        for session in list(self._coordinator.sessions):
            self.dispatch(SessionClosed(session.id))
        for timer in list(self._timers):
            self._drop_timer(timer)
