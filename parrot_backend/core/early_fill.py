"""Early fill: prompts of requests to come are computed as far as they are known.

While a producer runs, or a client has yet to set a variable, the part of a consumer's prompt before
its first missing value can be prefilled on the engine that will probably run it. A fill has the
lowest priority and is given up when its request becomes ready.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from parrot_backend.core.commands import AbortRequest, Command, FillPrefix
from parrot_backend.core.config import EarlyFillConfig
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId, NodeId
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.prefix import PrefixBoundary, PrefixChain, PrefixIndex
from parrot_backend.core.prompt import PromptPart

#: A prompt that was filled once is filled again when it has become so many times as long.
_GROWTH = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class FillCandidate:
    """A prompt to come, as far as it is known.

    Attributes:
        request: Whose prompt it is.
        parts: The whole prompt, with placeholders for what is missing.
        num_known: Its leading parts that are known.
        chain: Their boundaries.
        near: The engine where the missing value is being made, if that is so.
    """

    request: Request
    parts: tuple[PromptPart, ...]
    num_known: int
    chain: PrefixChain
    near: EngineId | None = None

    @property
    def key(self) -> bytes:
        """Hash of all that is known."""
        return self.chain[-1].hash


@dataclass(frozen=True, slots=True)
class _Fill:
    engine: EngineId
    node: NodeId
    chain: PrefixChain


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
        self._backlog: OrderedDict[NodeId, FillCandidate] = OrderedDict()
        self._filled_tokens: dict[NodeId, int] = {}
        self._num_started = 0

    def __len__(self) -> int:
        return len(self._fills)

    @property
    def has_backlog(self) -> bool:
        """True while prompts wait for a fill."""
        return bool(self._backlog)

    def is_wanted(self, request: Request, chain: Sequence[PrefixBoundary]) -> bool:
        """Tell whether a fill of a waiting request's known prefix is worth it."""
        queued = self._backlog.get(request.id)
        return (
            self._config.is_on
            and request.state is NodeState.WAITING
            and (queued is None or queued.key != chain[-1].hash)
            and request.id not in self._attempt_of
            and chain[-1].tokens >= self._config.min_tokens
            # Each value that comes makes the prompt of a wide reduce a little longer.
            and chain[-1].tokens >= _GROWTH * self._filled_tokens.get(request.id, 0)
            and not self._prefixes.engines_holding(chain[-1].hash)
            and all(fill.chain[-1].hash != chain[-1].hash for fill in self._fills.values())
        )

    def consider(self, candidate: FillCandidate) -> None:
        """Take in what could be filled; ``resume`` begins it."""
        self._backlog[candidate.request.id] = candidate
        if len(self._backlog) > self._config.max_backlog:
            self._backlog.popitem(last=False)

    def ended(self, attempt: AttemptId, *, is_complete: bool) -> bool:
        """Note that a fill has ended; False if the attempt is no fill."""
        fill = self._fills.pop(attempt, None)
        if fill is None:
            return False
        self._attempt_of.pop(fill.node, None)
        if not is_complete:
            # Others may be computing what the prompt begins with.
            self._prefixes.give_up(fill.engine, fill.chain[-1:])
        return True

    def stop(self, node: NodeId) -> None:
        """Give up the fill of a request: it is ready, or has ended."""
        self._backlog.pop(node, None)
        self._filled_tokens.pop(node, None)
        attempt = self._attempt_of.pop(node, None)
        if attempt is not None:
            fill = self._fills.pop(attempt)
            self._emit(AbortRequest(fill.engine, attempt, is_early=True))

    def lose_engine(self, engine: EngineId) -> None:
        """Forget the fills of an engine: it is gone."""
        for attempt in [a for a, fill in self._fills.items() if fill.engine == engine]:
            self._attempt_of.pop(self._fills.pop(attempt).node, None)
        self._filled_tokens.clear()  # what was filled there may be filled once more

    def _start(self, candidate: FillCandidate, engine: EngineId) -> None:
        request = candidate.request
        attempt = AttemptId(f"{request.id}~fill{self._num_started}")
        self._num_started += 1
        self._fills[attempt] = _Fill(engine, request.id, candidate.chain)
        self._filled_tokens[request.id] = candidate.chain[-1].tokens
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
                chat=request.chat,
            )
        )

    def resume(self, engines: Collection[EngineState]) -> None:
        """Begin fills, the oldest first, as far as they are still wanted and there is room.

        Args:
            engines: Those that take fills.
        """
        for candidate in list(self._backlog.values()):
            free = [e for e in engines if self._num_on(e.id) < self._config.max_per_engine]
            if not free:
                return
            serving = [e for e in free if e.serves(candidate.request.model)]
            if not serving:
                continue
            del self._backlog[candidate.request.id]
            if self.is_wanted(candidate.request, candidate.chain):
                near = candidate.near
                engine = min(serving, key=lambda e: (e.id != near, e.used_tokens, e.order))
                self._start(candidate, engine.id)

    def _num_on(self, engine: EngineId) -> int:
        return sum(fill.engine == engine for fill in self._fills.values())
