"""Splicing: the next output of a call is handed to the engine while the one before is generated.

In a call with several outputs, each output's prompt is the one before, with its output, and what
follows. An engine that splices is given the second request early; it puts the output in by itself
when it is complete and goes on at once, without a way through the server. Until then the request
is *staged*: for the core it still waits. If the engine did not go on, the request takes the usual
way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from parrot_backend.core.commands import AbortRequest, Command, StageRequest
from parrot_backend.core.criteria import Objective
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import AttemptId, EngineId, NodeId
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.prefix import PrefixBoundary, PrefixChain
from parrot_backend.core.prompt import InPlace
from parrot_backend.core.resolution import IN_PLACE_PLACEHOLDER, resolve_leading


@dataclass(frozen=True, slots=True)
class Staged:
    """A request that an engine has already.

    Attributes:
        attempt: Under which it will run.
        engine: Where.
        after: The attempt whose output it waits for.
        objective: As the engine knows it, like ``remaining`` and ``quiet``.
    """

    attempt: AttemptId
    engine: EngineId
    after: AttemptId
    objective: Objective
    remaining: int
    quiet: bool


class Splicing:
    """Stages requests and takes them back.

    Args:
        is_on: Whether to stage anything.
        emit: Takes commands.

    Attributes:
        continuation: Where the requests go on that are going on now.
    """

    def __init__(self, is_on: bool, emit: Callable[[Command], None]) -> None:
        self._is_on = is_on
        self._emit = emit
        self._staged: dict[NodeId, Staged] = {}
        self._num_staged = 0
        self._spliced: Collection[AttemptId] = ()
        self.continuation: PrefixChain = ()

    def __len__(self) -> int:
        return len(self._staged)

    def look_ahead(
        self, graph: SessionGraph, producer: Request, engines: Mapping[EngineId, EngineState]
    ) -> None:
        """Stage the request that goes on where a running one ends, if there is one."""
        engine = None if producer.engine is None else engines.get(producer.engine)
        if not self._is_on or engine is None or not engine.info.splices or producer.sampling.stop:
            return
        for node in graph.consumers(graph.variables[producer.output]):
            if isinstance(node, Request) and _goes_on(graph, node, producer):
                self._stage(graph, node, producer, engine.id)
                return

    @contextmanager
    def going_on(
        self, spliced: Collection[AttemptId], continuation: PrefixBoundary
    ) -> Iterator[None]:
        """Within, requests that become ready and were staged as these attempts run already.

        Args:
            spliced: The attempts.
            continuation: The boundary where they go on.
        """
        self._spliced, self.continuation = spliced, (continuation,)
        try:
            yield
        finally:
            self._spliced, self.continuation = (), ()

    def take(self, request: Request) -> Staged | None:
        """Return how a request that is ready runs already; if it does not, take it back."""
        staged = self._staged.get(request.id)
        if staged is not None and staged.attempt in self._spliced:
            return self._staged.pop(request.id)
        self.drop(request.id)
        return None

    def holds(self, node: NodeId) -> bool:
        """Tell whether an engine has a request already."""
        return node in self._staged

    def drop(self, node: NodeId) -> None:
        """Take a request back, if it is staged."""
        staged = self._staged.pop(node, None)
        if staged is not None:
            self._emit(AbortRequest(staged.engine, staged.attempt, is_early=True))

    def lose_attempt(self, attempt: AttemptId) -> None:
        """Take back what waits for an attempt that will not finish."""
        for node in [n for n, staged in self._staged.items() if staged.after == attempt]:
            self.drop(node)

    def lose_engine(self, engine: EngineId) -> None:
        """Forget what an engine had: it is gone."""
        self._staged = {n: s for n, s in self._staged.items() if s.engine != engine}

    def _stage(
        self, graph: SessionGraph, request: Request, producer: Request, engine: EngineId
    ) -> None:
        assert producer.attempt is not None
        max_gap_tokens = producer.sampling.max_tokens
        if max_gap_tokens is None:
            return  # no room can be kept for an output without a limit
        before = resolve_leading(request.segments, graph.variables, 0)
        gap = len(before)
        after = resolve_leading(request.segments, graph.variables, gap + 1)
        if gap + 1 + len(after) < len(request.segments):
            return  # the output is read a second time, in another form
        attempt = AttemptId(f"{request.id}~s{self._num_staged}")
        self._num_staged += 1
        self._staged[request.id] = Staged(
            attempt,
            engine,
            producer.attempt,
            request.objective,
            request.remaining,
            request.quiet,
        )
        self._emit(
            StageRequest(
                engine=engine,
                attempt=attempt,
                after=producer.attempt,
                gap=gap,
                session=request.session,
                tenant=request.tenant,
                model=producer.model,
                parts=(*before, IN_PLACE_PLACEHOLDER, *after),
                sampling=request.sampling,
                objective=request.objective,
                remaining=request.remaining,
                max_gap_tokens=max_gap_tokens,
                chat=request.chat,
                quiet=request.quiet,
            )
        )


def _goes_on(graph: SessionGraph, request: Request, producer: Request) -> bool:
    """Tell whether a request waits for nothing but to go on where another ends."""
    places = [s for s in request.segments if isinstance(s, InPlace)]
    return (
        request.state is NodeState.WAITING
        and request.missing == 1
        and bool(places)
        and places[-1].variable == producer.output
        and request.model in (None, producer.model)
    )
