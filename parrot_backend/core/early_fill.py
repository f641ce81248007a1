"""Early fill: prompts of requests to come are computed as far as they are known.

While a producer runs, or a client has yet to set a variable, the part of a consumer's prompt before
its first missing value can be prefilled on the engine that will probably run it. A fill has the
lowest priority and is given up when its request becomes ready.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from parrot_backend.core.commands import AbortRequest, Command, FillPrefix
from parrot_backend.core.config import EarlyFillConfig
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId, NodeId
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.prefix import PrefixBoundary, PrefixChain, PrefixIndex
from parrot_backend.core.prompt import PromptPart


@dataclass(frozen=True, slots=True, eq=False)
class FillCandidate:
    """A prompt to come, as far as it is known.

    Attributes:
        request: Whose prompt it is.
        parts: The whole prompt, with placeholders for what is missing.
        num_known: Its leading parts that are known.
        chain: Their boundaries.
    """

    request: Request
    parts: tuple[PromptPart, ...]
    num_known: int
    chain: PrefixChain

    @property
    def key(self) -> bytes:
        """Hash of all that is known."""
        return self.chain[-1].hash


@dataclass(frozen=True, slots=True)
class _Fill:
    engine: EngineId
    node: NodeId
    key: bytes


class EarlyFill:
    """Starts and ends fills.

    Args:
        config: Whether and how much.
        prefixes: Which engine holds which prefix.
        keep: Returns what an engine shall keep of a chain (``Retention.to_keep``).
        emit: Takes commands.
    """

    def __init__(
        self,
        config: EarlyFillConfig,
        prefixes: PrefixIndex,
        keep: Callable[[PrefixChain, EngineId, int], tuple[bytes, ...]],
        emit: Callable[[Command], None],
    ) -> None:
        self._config = config
        self._prefixes = prefixes
        self._keep = keep
        self._emit = emit
        self._fills: dict[AttemptId, _Fill] = {}
        self._attempt_of: dict[NodeId, AttemptId] = {}
        self._backlog: deque[FillCandidate] = deque(maxlen=config.max_backlog)
        self._num_started = 0

    def __len__(self) -> int:
        return len(self._fills)

    def is_wanted(self, request: Request, chain: Sequence[PrefixBoundary]) -> bool:
        """Tell whether a fill of a waiting request's known prefix is worth it."""
        return (
            self._config.is_on
            and request.state is NodeState.WAITING
            and request.id not in self._attempt_of
            and chain[-1].tokens >= self._config.min_tokens
            and not self._prefixes.engines_holding(chain[-1].hash)
        )

    def consider(
        self,
        candidate: FillCandidate,
        engines: Collection[EngineState],
        near: EngineId | None = None,
    ) -> None:
        """Begin a fill that is wanted; put it off while the engines have enough of them.

        Args:
            candidate: What could be computed.
            engines: Those that take fills and serve the model.
            near: The engine where the missing value is being made, if that is so.
        """
        free = [e for e in engines if self._num_on(e.id) < self._config.max_per_engine]
        if not free:
            if engines:
                self._backlog.append(candidate)
            return
        engine = min(free, key=lambda e: (e.id != near, e.used_tokens, e.order))
        self._start(candidate, engine.id)

    def ended(self, attempt: AttemptId, engines: Collection[EngineState]) -> bool:
        """Note that a fill has ended, and begin the next; False if the attempt is no fill."""
        fill = self._fills.pop(attempt, None)
        if fill is None:
            return False
        self._attempt_of.pop(fill.node, None)
        self._resume(engines)
        return True

    def stop(self, node: NodeId) -> None:
        """Give up the fill of a request: it is ready, or has ended."""
        attempt = self._attempt_of.pop(node, None)
        if attempt is not None:
            fill = self._fills.pop(attempt)
            self._emit(AbortRequest(fill.engine, attempt, is_early=True))

    def lose_engine(self, engine: EngineId) -> None:
        """Forget the fills of an engine: it is gone."""
        for attempt in [a for a, fill in self._fills.items() if fill.engine == engine]:
            self._attempt_of.pop(self._fills.pop(attempt).node, None)

    def _start(self, candidate: FillCandidate, engine: EngineId) -> None:
        request = candidate.request
        attempt = AttemptId(f"{request.id}~fill{self._num_started}")
        self._num_started += 1
        self._fills[attempt] = _Fill(engine, request.id, candidate.key)
        self._attempt_of[request.id] = attempt
        # Others with the same prefix, and the request itself, are to go there.
        self._prefixes.record(engine, candidate.chain)
        self._emit(
            FillPrefix(
                engine=engine,
                attempt=attempt,
                session=request.session,
                tenant=request.tenant,
                model=request.model,
                parts=candidate.parts,
                num_known=candidate.num_known,
                prefixes=candidate.chain,
                retain=self._keep(candidate.chain, engine, 0),
            )
        )

    def _resume(self, engines: Collection[EngineState]) -> None:
        for _ in range(len(self._backlog)):
            candidate = self._backlog.popleft()
            serving = [e for e in engines if e.serves(candidate.request.model)]
            if self.is_wanted(candidate.request, candidate.chain):
                self.consider(candidate, serving)
            if all(self._num_on(e.id) >= self._config.max_per_engine for e in engines):
                return

    def _num_on(self, engine: EngineId) -> int:
        return sum(fill.engine == engine for fill in self._fills.values())
