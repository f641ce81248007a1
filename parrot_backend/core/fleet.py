"""The fleet: ready requests, the engines they run on, and the attempts in between.

Requests come in when they are ready and leave when they are stopped, done, or when their engine is
gone. What waits for inputs is only known here for what ``Foresight`` makes of it.
"""

from __future__ import annotations

from collections.abc import Callable

from parrot_backend.core.attempts import next_attempt, prefix_seed, start_command
from parrot_backend.core.commands import (
    AbortRequest,
    CloseEngine,
    Command,
    SetTimer,
    UpdateRequest,
)
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.events import (
    EngineInfo,
    EngineReported,
    EngineTimer,
    RetryTimer,
)
from parrot_backend.core.foresight import Foresight
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import AttemptId, EngineId, NodeId
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.scheduling.scheduler import Scheduler
from parrot_backend.core.splicing import Splicing, Staged
from parrot_backend.core.token_rate import TokenRate
from parrot_backend.core.unserved import UnservedWatch
from parrot_backend.errors import RequestError


class Fleet:
    """Queue, engines and running attempts of the whole server."""

    def __init__(self, config: CoreConfig, emit: Callable[[Command], None]) -> None:
        self._config = config
        self._emit = emit
        self.scheduler = Scheduler(config.scheduler, config.prefix_index)
        self.foresight = Foresight(config, self.scheduler.keepers, self.scheduler.prefixes, emit)
        self.splicing = Splicing(config.splice, emit)
        self._running: dict[AttemptId, Request] = {}
        # Models of all engines that ever joined: one whose engines are down is still a model.
        self._models: dict[str, None] = {}
        self._rate = TokenRate(config.tokens_per_char)
        self._held: dict[NodeId, Request] = {}
        self._unserved = UnservedWatch(config.no_engine_s, emit)

    # --- engines ---------------------------------------------------------------------------

    def join(self, info: EngineInfo, now_s: float) -> None:
        """Add an engine.

        Raises:
            RequestError: ``engine_exists`` if this incarnation has joined before,
                ``invalid_engine`` if it could never run anything.
        """
        if min(info.max_requests, len(info.models)) < 1:
            raise RequestError("invalid_engine", f"engine {info.engine!r} has no slots or models")
        if info.engine in self.scheduler.engines:
            raise RequestError("engine_exists", f"engine {info.engine!r} has already joined")
        is_first = not self._models
        self._models.update(dict.fromkeys(info.models))
        self.scheduler.add_engine(info, now_s)
        for request in list(self.scheduler.waiting()):
            if is_first and request.model is None:
                self.scheduler.withdraw(request)
                self.enqueue(request, now_s)
            elif self.scheduler.serves(request.model):
                request.unserved_since_s = None

    def lose(self, engine: EngineId, now_s: float) -> list[Request]:
        """Remove an engine and return what ran there, without attempts."""
        if engine not in self.scheduler.engines:
            return []
        orphans = [self._running.pop(a) for a in self.scheduler.remove_engine(engine).running]
        self.foresight.lose_engine(engine)
        self.splicing.lose_engine(engine)
        for request in self.scheduler.waiting():
            if request.unserved_since_s is None and not self.scheduler.serves(request.model):
                request.unserved_since_s = now_s
                self._unserved.note(request)
        return orphans

    def report(self, event: EngineReported, now_s: float) -> None:
        """Take in what an engine says of itself; whatever it is, the engine lives."""
        engine = self.scheduler.engines.get(event.engine)
        if engine is None:
            return
        engine.last_output_s = now_s
        if event.is_snapshot:
            self.scheduler.prefixes.report_all(event.engine, event.held)
        else:
            self.scheduler.prefixes.report(event.engine, event.held, event.lost)
        if event.step_time is not None:
            engine.step_time = event.step_time
            self.scheduler.note(engine)

    def check_model(self, model: str | None) -> None:
        """Reject a model that no engine ever served.

        Raises:
            RequestError: ``unknown_model``.
        """
        if model is not None and self._models and model not in self._models:
            known = ", ".join(self._models)
            raise RequestError("unknown_model", f"no model {model!r}; there is: {known}")

    def watch(self, engine_id: EngineId, now_s: float) -> str | None:
        """Return why an engine must be given up, or None and look again later."""
        engine = self.scheduler.engines.get(engine_id)
        if engine is None:
            return None
        engine.is_watched = bool(engine.running)
        if not engine.is_watched:
            return None
        # In the very words in which the timer is set: differences round otherwise than sums.
        due_s = engine.last_output_s + self._config.engine_stall_s
        if now_s >= due_s:
            silent_s = now_s - engine.last_output_s
            reason = f"silent for {silent_s:.0f} s with {len(engine.running)} requests running"
            self._emit(CloseEngine(engine_id, reason))
            return reason
        self._emit(SetTimer(EngineTimer(engine_id), due_s))
        return None

    # --- requests --------------------------------------------------------------------------

    @property
    def num_waiting(self) -> int:
        """Requests that are queued, or about to be tried again."""
        return self.scheduler.num_waiting + len(self._held)

    @property
    def tokens_per_char(self) -> float:
        """How long texts are in tokens, as far as that is known."""
        return self._rate.value

    @property
    def num_active(self) -> int:
        """Requests that wait for an engine or run on one."""
        return self.num_waiting + len(self._running)

    def retry(self, request: Request, now_s: float) -> None:
        """Queue a request that failed; at once if another engine can try, else after a while."""
        serving = [e for e in self.scheduler.engines.values() if e.serves(request.model)]
        has_other = any(engine.id not in request.avoided for engine in serving)
        delay_s = self._config.retry_delay_s * 2 ** (request.attempts - 1)
        if not serving or has_other or not delay_s:
            self.enqueue(request, now_s)
            return
        self._held[request.id] = request
        self._emit(SetTimer(RetryTimer(request.id), now_s + delay_s))

    def resume(self, node: NodeId, now_s: float) -> None:
        """Queue a request whose wait is over, unless it was stopped meanwhile."""
        request = self._held.pop(node, None)
        if request is not None:
            self.enqueue(request, now_s)

    def prepare(self, request: Request) -> None:
        """Note what the prompt of a ready request shares, and how long it is."""
        request.prefixes = self.foresight.complete(request, prefix_seed(request), self._rate.value)
        in_front = int(len(request.chat.prompt_text) * self._rate.value)
        request.prompt_tokens = in_front + (request.prefixes[-1].tokens if request.prefixes else 0)

    def enqueue(self, request: Request, now_s: float) -> None:
        """Queue a ready request. One without a model gets the default, as soon as there is one."""
        self.settle_model(request)
        self.prepare(request)
        staged = self.splicing.take(request)
        if staged is not None and staged.engine in self.scheduler.engines:
            self._adopt(request, staged, now_s)
            return
        self.scheduler.enqueue(request)
        is_served = self.scheduler.serves(request.model)
        request.unserved_since_s = None if is_served else now_s
        self._unserved.note(request)

    def expect(self, graph: SessionGraph, request: Request) -> None:
        """Take in a request that waits for inputs, or what has become known of it since."""
        self.settle_model(request)
        self.foresight.expect(graph, request, prefix_seed(request), self._rate.value)

    def end_fill(self, attempt: AttemptId, *, is_complete: bool) -> bool:
        """Note the end of a fill; False if the attempt is none."""
        return self.foresight.fills.ended(attempt, is_complete=is_complete)

    def resume_fills(self) -> None:
        """Begin fills that were put off, where there is room for them now."""
        if self.foresight.fills.has_backlog:
            self.foresight.fills.resume(self.scheduler.keepers.values())

    def update(self, request: Request) -> None:
        """Tell the engine of a running request that its objective or path has changed."""
        engine = None if request.engine is None else self.scheduler.engines.get(request.engine)
        if request.state is NodeState.RUNNING and engine is not None and engine.info.takes_updates:
            assert request.attempt is not None
            self._emit(
                UpdateRequest(engine.id, request.attempt, request.objective, request.remaining)
            )

    def settle_model(self, request: Request) -> None:
        """Give a request without a model the default, as soon as there is one."""
        if request.model is None:
            request.model = next(iter(self._models), None)

    def overdue(self, now_s: float) -> list[Request]:
        """Return the queued requests that have waited too long for any engine to serve them."""
        return self._unserved.overdue(self.scheduler.waiting(), now_s)

    def _adopt(self, request: Request, staged: Staged, now_s: float) -> None:
        """Take in a request that its engine has begun by itself."""
        self.scheduler.prefixes.record(staged.engine, self.splicing.continuation)
        self.scheduler.adopt(request, staged.engine, staged.attempt, now_s)
        request.quiet = staged.quiet
        reason = "goes on where the output before it ended"
        self._note_running(request, staged.attempt, staged.engine, reason, now_s)
        if (request.objective, request.remaining) != (staged.objective, staged.remaining):
            self.update(request)

    def stop(self, request: Request) -> None:
        """Take a request out, wherever it is, and abort it if it runs."""
        self.splicing.drop(request.id)
        self.scheduler.withdraw(request)
        self._held.pop(request.id, None)
        if request.attempt is not None and self._running.pop(request.attempt, None) is not None:
            assert request.engine is not None
            self.scheduler.release(request.engine, request.attempt)
            self._emit(AbortRequest(request.engine, request.attempt))

    def running(self, attempt: AttemptId, now_s: float) -> Request | None:
        """Return the request of a running attempt, and note that its engine is alive."""
        request = self._running.get(attempt)
        if request is not None:
            assert request.engine is not None
            self.scheduler.engines[request.engine].last_output_s = now_s
        return request

    def end_attempt(self, attempt: AttemptId, now_s: float) -> Request | None:
        """Take an attempt off its engine; None if it is not running (any more)."""
        request = self.running(attempt, now_s)
        if request is None:
            return None
        del self._running[attempt]
        assert request.engine is not None
        self.scheduler.release(request.engine, attempt)
        return request

    def learn(self, request: Request, text: str) -> PrefixBoundary:
        """Learn from a finished request how long texts are in tokens.

        Returns:
            The boundary after its prompt and output.
        """
        assert request.usage is not None
        chars = sum([part.num_chars for part in request.parts]) + len(request.chat.prompt_text)
        self._rate.learn(chars, request.usage.prompt_tokens)
        seed, rate = prefix_seed(request), self._rate.value
        return self.foresight.continuation(request, text, seed, rate)

    def keep_continuation(
        self, request: Request, boundary: PrefixBoundary, attempt: AttemptId
    ) -> None:
        """Note that an engine holds prompt and output of a request, and keep them if wanted."""
        assert request.engine is not None
        self.foresight.continued(boundary.hash, request.engine, attempt)
        self.scheduler.prefixes.record(request.engine, (boundary,))

    def place(self, now_s: float) -> list[Request]:
        """Start what can be placed now, and return it."""
        placed: list[Request] = []
        for request, engine_id, reason in self.scheduler.schedule(now_s, next_attempt):
            attempt = next_attempt(request)
            self._note_running(request, attempt, engine_id, reason, now_s)
            retained: tuple[bytes, ...] = ()
            if self.scheduler.engines[engine_id].info.keeps_prefixes:
                retained = self.foresight.to_keep(request, engine_id)
            self._emit(start_command(request, attempt, engine_id, retained, reason))
            placed.append(request)
        return placed

    def _note_running(
        self, request: Request, attempt: AttemptId, engine_id: EngineId, reason: str, now_s: float
    ) -> None:
        request.attempt = attempt
        request.attempts += 1
        request.engine, request.reason, request.placed_s = engine_id, reason, now_s
        request.move(NodeState.RUNNING)
        self._running[attempt] = request
        engine = self.scheduler.engines[engine_id]
        if not engine.is_watched:
            engine.is_watched = True
            due_s = engine.last_output_s + self._config.engine_stall_s
            self._emit(SetTimer(EngineTimer(engine_id), due_s))
