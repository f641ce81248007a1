"""Owner of the engines: opens them, reads what they say, and replaces those that are lost.

Each slot has one task that runs one incarnation of its engine after the other. An incarnation ends
when it dies, misbehaves, or the core gives it up; then the core hears ``EngineLost``, what is left
is closed, and after a delay the next one opens under a new id (``vllm-0``, then ``vllm-0.1``).
Which requests run again, and where, is the core's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from parrot_backend.core.criteria import Objective
from parrot_backend.core.events import (
    EngineInfo,
    EngineJoined,
    EngineLost,
    EngineReported,
    Event,
    RequestFailed,
)
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.engines.base import Engine, EngineDied, EngineLoad, EngineOutput, EngineRequest
from parrot_backend.errors import EngineError
from parrot_backend.server.clock import Clock

logger = logging.getLogger(__name__)

_HOUR_S = 3600.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class EngineSlot:
    """A place for one engine: its name, and how to make an incarnation of it."""

    name: str
    create: Callable[[EngineId], Engine]


@dataclass(frozen=True, slots=True)
class SupervisorConfig:
    """How patient the supervisor is.

    Attributes:
        open_timeout_s: An engine that is not open after this has failed; large models take minutes.
        close_timeout_s: An engine that is not closed after this is left alone.
        restart_delay_s: Delay of the first restart; it doubles with each restart of the last hour.
        restart_max_delay_s: Longest delay.
        restarts_per_hour: After so many restarts within an hour a slot stays down.
    """

    open_timeout_s: float = 900.0
    close_timeout_s: float = 15.0
    restart_delay_s: float = 1.0
    restart_max_delay_s: float = 30.0
    restarts_per_hour: int = 10


@dataclass(slots=True, eq=False)
class _Life:
    """One incarnation of one engine; ``lost`` gets the reason of its end."""

    id: EngineId
    slot: str
    engine: Engine
    lost: asyncio.Future[str]
    is_up: bool = False

    def end(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)


class Supervisor:
    """Runs all engines; an ``EngineDriver`` for the runtime."""

    def __init__(self, slots: Sequence[EngineSlot], config: SupervisorConfig, clock: Clock) -> None:
        self._slots = slots
        self._config = config
        self._clock = clock
        self._lives: dict[EngineId, _Life] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._joined = asyncio.Event()
        self._dispatch: Callable[[Event], None] = _refuse

    def open(self, dispatch: Callable[[Event], None]) -> None:
        """Begin to open all engines, and return at once; events go to ``dispatch``."""
        self._dispatch = dispatch
        self._tasks = [
            asyncio.create_task(self._keep(slot), name=f"engine {slot.name}")
            for slot in self._slots
        ]

    async def joined(self) -> None:
        """Return when an engine has joined for the first time."""
        await self._joined.wait()

    def is_up(self) -> dict[str, bool]:
        """Tell for each slot whether its engine serves now."""
        up = {life.slot for life in self._lives.values() if life.is_up}
        return {slot.name: slot.name in up for slot in self._slots}

    def loads(self) -> dict[EngineId, EngineLoad]:
        """Return the present load of each live engine."""
        return {life.id: life.engine.load() for life in self._lives.values() if life.is_up}

    async def close(self) -> None:
        """End all engines. Idempotent."""
        self._stopping.set()
        for life in self._lives.values():
            life.end("the server stops")
        await asyncio.gather(*self._tasks)

    # --- driving ---------------------------------------------------------------------------

    def start(self, engine: EngineId, request: EngineRequest) -> None:
        """Begin an attempt; an engine that cannot even take it is given up."""
        self._drive(engine, lambda running: running.start(request))

    def abort(self, engine: EngineId, attempt: AttemptId) -> None:
        """Stop an attempt, if its engine still lives."""
        self._drive(engine, lambda running: running.abort(attempt))

    def update(
        self, engine: EngineId, attempt: AttemptId, objective: Objective, remaining: int
    ) -> None:
        """Change the hints of an attempt, if its engine still lives."""
        self._drive(engine, lambda running: running.update(attempt, objective, remaining))

    def retain(self, engine: EngineId, key: bytes, attempt: AttemptId | None) -> None:
        """Keep a prefix, if the engine still lives."""
        self._drive(engine, lambda running: running.retain(key, attempt))

    def release(self, engine: EngineId, keys: Sequence[bytes]) -> None:
        """Keep prefixes no longer."""
        self._drive(engine, lambda running: running.release(keys))

    def give_up(self, engine: EngineId, reason: str) -> None:
        """End an engine that the core no longer trusts."""
        life = self._lives.get(engine)
        if life is not None:
            life.end(reason)

    def _drive(self, engine: EngineId, act: Callable[[Engine], None]) -> None:
        life = self._lives.get(engine)
        if life is None or not life.is_up:
            return  # lost in this very dispatch; the core hears of that next
        try:
            act(life.engine)
        except Exception as exc:
            # A broken engine must not stop the commands that go to the others.
            logger.exception("engine=%s does not obey", engine)
            self._lose(life, f"it does not obey: {exc}")

    # --- lives of an engine ----------------------------------------------------------------

    async def _keep(self, slot: EngineSlot) -> None:
        restarts: deque[float] = deque()
        for number in itertools.count():
            if self._stopping.is_set():
                return
            engine_id = EngineId(slot.name if number == 0 else f"{slot.name}.{number}")
            reason = await self._live(slot, engine_id)
            if self._stopping.is_set():
                return
            delay_s = self._restart_delay_s(restarts)
            if delay_s is None:
                logger.error("engine=%s stays down, it was lost too often: %s", engine_id, reason)
                return
            logger.warning("engine=%s is down, next try in %g s: %s", engine_id, delay_s, reason)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    def _restart_delay_s(self, restarts: deque[float]) -> float | None:
        now_s = self._clock.now_s()
        while restarts and now_s - restarts[0] > _HOUR_S:
            restarts.popleft()
        if len(restarts) >= self._config.restarts_per_hour:
            return None
        delay_s = self._config.restart_delay_s * 2.0 ** len(restarts)
        restarts.append(now_s)
        return min(delay_s, self._config.restart_max_delay_s)

    async def _live(self, slot: EngineSlot, engine_id: EngineId) -> str:
        """Run one incarnation from opening to closing; return why it ended."""
        try:
            engine = slot.create(engine_id)
        except EngineError as exc:
            return str(exc)
        lost = asyncio.get_running_loop().create_future()
        life = self._lives[engine_id] = _Life(engine_id, slot.name, engine, lost)
        try:
            info = await self._until_lost(life, engine.open(), self._config.open_timeout_s)
            if info is not None:
                self._join(life, info)
                await self._until_lost(life, self._read(life), None)
        except EngineError as exc:
            life.end(exc.message)
        except Exception as exc:
            # Whatever is wrong with one engine must leave the others and the server running.
            logger.exception("engine=%s failed", engine_id)
            life.end(f"{type(exc).__name__}: {exc}")
        self._lose(life, "it ended")
        del self._lives[engine_id]
        await self._close(life)
        return life.lost.result()

    async def _until_lost(
        self, life: _Life, work: Coroutine[Any, Any, _T], timeout_s: float | None
    ) -> _T | None:
        """Return the result of the work, or None when the life ends before it is done."""
        task = asyncio.create_task(work, name=f"engine {life.id}")
        either: set[asyncio.Future[Any]] = {task, life.lost}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        life.end(f"it did not open within {timeout_s} s")
        task.cancel()
        await asyncio.wait({task}, timeout=self._config.close_timeout_s)
        return None

    def _join(self, life: _Life, info: EngineInfo) -> None:
        life.is_up = True
        self._dispatch(EngineJoined(info))
        logger.info("engine=%s joined, models: %s", life.id, ", ".join(info.models))
        self._joined.set()

    async def _read(self, life: _Life) -> None:
        try:
            async for output in life.engine.outputs():
                self._tell(output)
            self._lose(life, "it said no more")
        except EngineDied as exc:
            self._lose(life, str(exc))

    def _tell(self, output: EngineOutput) -> None:
        try:
            self._dispatch(output)
        except Exception:
            # A defect of ours that one request brings to light must not end all that run there.
            if isinstance(output, EngineReported):
                logger.exception("engine=%s: its report could not be handled", output.engine)
                return
            logger.exception("attempt=%s: its output could not be handled", output.attempt)
            self._dispatch(RequestFailed(output.attempt, "internal", "a defect in Parrot"))

    def _lose(self, life: _Life, reason: str) -> None:
        # The core hears of it before anything else can happen, so it places nothing there.
        life.end(reason)
        if life.is_up:
            life.is_up = False
            self._dispatch(EngineLost(life.id, life.lost.result()))

    async def _close(self, life: _Life) -> None:
        task = asyncio.create_task(life.engine.close(), name=f"close {life.id}")
        await asyncio.wait({task}, timeout=self._config.close_timeout_s)
        if not task.done():
            task.cancel()
            logger.error("engine=%s does not close, it is left alone", life.id)
        elif task.exception() is not None:
            logger.error("engine=%s failed to close", life.id, exc_info=task.exception())


def _refuse(event: Event) -> None:
    raise AssertionError(f"{type(event).__name__} before open")
