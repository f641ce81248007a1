"""What is known of requests to come, and what follows: prefixes to keep, prompts to fill early.

A request that waits for inputs has a prompt that is known up to the first missing value. This
module follows how it becomes known, part by part, and tells ``Retention`` and ``EarlyFill``. It
does nothing while no engine can keep prefixes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from parrot_backend.core.anticipation import Anticipation
from parrot_backend.core.commands import Command
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.control import ControlNode
from parrot_backend.core.early_fill import EarlyFill, FillCandidate
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import AttemptId, EngineId, NodeId, VariableId
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.prefix import PrefixBoundary, PrefixChain, PrefixHasher, PrefixIndex
from parrot_backend.core.prompt import InPlace, Input, PartKind, PromptPart
from parrot_backend.core.resolution import resolve_leading, with_placeholders
from parrot_backend.core.retention import Retention


@dataclass(slots=True)
class _Known:
    """The known leading parts of one prompt.

    Attributes:
        hasher: Hashes what comes next.
        parts: The parts.
        chain: Their boundaries.
        is_taken_in: ``Anticipation`` has seen it. Requests get ready again when they are tried
            again, or when the equal one that they waited for failed.
    """

    hasher: PrefixHasher
    parts: list[PromptPart] = field(default_factory=list)
    chain: list[PrefixBoundary] = field(default_factory=list)
    is_taken_in: bool = False


class Foresight:
    """Follows requests to come.

    Args:
        config: Settings of the core.
        keepers: Live engines that can keep prefixes.
        prefixes: Which engine holds which prefix.
        emit: Takes commands.
    """

    def __init__(
        self,
        config: CoreConfig,
        keepers: Mapping[EngineId, EngineState],
        prefixes: PrefixIndex,
        emit: Callable[[Command], None],
    ) -> None:
        self._retains = config.retain_prefixes
        self._keepers = keepers
        self._known: dict[NodeId, _Known] = {}
        # Of prompts that are complete, where no engine keeps prefixes.
        self._hashers: dict[NodeId, PrefixHasher] = {}
        min_tokens = config.prefix_index.min_tokens
        self.retention = Retention(prefixes, min_tokens, emit)
        self.anticipation = Anticipation(self.retention, min_tokens)
        self.fills = EarlyFill(config.early_fill, prefixes, self.retention.to_keep, emit)

    def _is_kept(self, model: str | None) -> bool:
        """Tell whether any engine can keep prefixes of a model."""
        return any(engine.serves(model) for engine in self._keepers.values())

    def expect(self, graph: SessionGraph, request: Request, seed: str, rate: float) -> None:
        """Take in a request that waits, or what has become known of its prompt since.

        Args:
            graph: The request's graph.
            request: The request, in state WAITING.
            seed: See :class:`PrefixHasher`.
            rate: Tokens per character.
        """
        if not self._is_kept(request.model):
            return
        known = self._known.get(request.id)
        if known is None:
            known = self._known[request.id] = _Known(PrefixHasher(seed))
        parts = resolve_leading(request.segments, graph.variables, len(known.parts))
        self._extend(request, known, parts, rate)

    def complete(self, request: Request, seed: str, rate: float) -> PrefixChain:
        """Return the boundaries of a request that is ready, and count what is new of them."""
        known = self._known.get(request.id)
        if known is None:
            if not self._is_kept(request.model):
                hasher = self._hashers[request.id] = PrefixHasher(seed)
                return hasher.extend(request.parts, rate)
            known = self._known[request.id] = _Known(PrefixHasher(seed))
        self.fills.stop(request.id)
        self._extend(request, known, request.parts[len(known.parts) :], rate)
        if self._retains and not known.is_taken_in:
            known.is_taken_in = True
            self.anticipation.begin(request, known.chain, self._keepers)
        return tuple(known.chain)

    def to_keep(self, request: Request, engine: EngineId) -> tuple[bytes, ...]:
        """Return what an engine shall keep of a request that it is going to compute."""
        inside = [beginning.boundary for beginning in request.beginnings]
        # The request itself is a reader of its boundaries, and not of its beginnings.
        of_parts = self.retention.to_keep(request.prefixes, engine, 1)
        return (*of_parts, *self.retention.to_keep(inside, engine, 0))

    def _extend(
        self, request: Request, known: _Known, parts: Iterable[PromptPart], rate: float
    ) -> None:
        added = list(parts)
        if not added:
            return
        boundaries = known.hasher.extend(added, rate)
        known.parts += added
        known.chain += boundaries
        if self._retains:
            self.retention.expect(request.id, boundaries, self._keepers)

    def continuation(self, request: Request, text: str, seed: str, rate: float) -> PrefixBoundary:
        """Return the boundary after a request's prompt and what was generated for it."""
        known = self._known.get(request.id)
        hasher = self._hashers[request.id] if known is None else known.hasher
        return hasher.copy().extend([PromptPart(PartKind.VALUE, text)], rate)[0]

    def fill(self, graph: SessionGraph, request: Request) -> None:
        """Fill the prompt of a request that waits, if its first missing value is on its way."""
        known = self._known.get(request.id)
        if known is None or not known.chain or not self.fills.is_wanted(request, known.chain):
            return
        is_coming, near = _first_missing(graph, request, len(known.parts))
        if is_coming:
            parts = with_placeholders(known.parts, request.segments)
            chain = tuple(known.chain)
            self.fills.consider(FillCandidate(request, parts, len(known.parts), chain, near))

    def continued(self, key: bytes, engine: EngineId, attempt: AttemptId) -> None:
        """Keep prompt and output of a finished attempt for a request that begins so."""
        if engine in self._keepers:
            self.retention.continued(key, engine, attempt)

    def forget(self, node: NodeId) -> None:
        """A request has ended: nothing is kept or filled for it any more."""
        self._hashers.pop(node, None)
        if self._known.pop(node, None) is not None:
            self.fills.stop(node)
            self.retention.forget(node)

    def lose_engine(self, engine: EngineId) -> None:
        """An engine is gone, with all it kept."""
        self.retention.lose_engine(engine)
        self.fills.lose_engine(engine)


def requests_fed_by(graph: SessionGraph, variable: VariableId) -> Iterator[Request]:
    """Yield the requests that read a variable, as it is or through transforms."""
    pending, seen = [variable], set[NodeId]()
    while pending:
        for node in graph.consumers(graph.variables[pending.pop()]):
            if node.id in seen:
                continue
            seen.add(node.id)
            if isinstance(node, Request):
                yield node
            else:
                pending.append(node.output)


def _first_missing(
    graph: SessionGraph, request: Request, position: int
) -> tuple[bool, EngineId | None]:
    """Tell whether the first missing value is on its way, and the engine that makes it.

    It is when a client will set it, and when all requests that make it, perhaps through transforms
    and control nodes whose last calls are known, are running.
    """
    if position >= len(request.segments):
        return False, None
    segment = request.segments[position]
    assert isinstance(segment, Input | InPlace), "else it would be known"
    if graph.variables[segment.variable].is_settled:
        return False, None  # its transform fails, and so will the request
    near: EngineId | None = None
    pending, seen = [segment.variable], {segment.variable}
    while pending:
        variable = graph.variables[pending.pop()]
        if variable.is_settled or variable.producer is None:
            continue
        node = graph.nodes[variable.producer]
        if isinstance(node, ControlNode) and node.results is None:
            return False, None  # it will add calls before
        if not isinstance(node, Request):
            further = [used for used in node.inputs if used not in seen]
            pending += further
            seen.update(further)
        elif node.state is NodeState.RUNNING:
            near = node.engine
        else:
            return False, None
    return True, near
