"""Sessions that a live server has run, as programs to be simulated.

What ``GET /v1/sessions/{id}`` shows is enough for calls, who reads whom, lengths and think times;
the session's timeline tells nothing more. A recording has the texts of prompts, too: so prompts
have their pieces in order, and share what they shared (``shared_beginnings.py``). Without them, and
for calls whose structure was discovered:

- a prompt is taken to begin with what is its own, and to end with what it reads, in order;
- as much of its own text as was cached is taken to be the same in all calls of its app and stage;

And in any case:

- what came through a transform or a map is waited for, but is part of the call's own text;
- what nobody reads is what the user wanted.

The result holds lengths and the server's names, and none of the session's texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from parrot_backend.core.criteria import Criteria
from parrot_backend.protocol import NodeView, SessionView
from parrot_backend.sim.plan import check_program
from parrot_backend.sim.program import (
    DEFAULT_TENANT,
    Arrival,
    Output,
    Piece,
    Program,
    ProgramCall,
)
from parrot_backend.sim.shared_beginnings import PieceLengths, RecordedPart
from parrot_backend.sim.workloads.building import LATENCY, THROUGHPUT, prompt, text
from parrot_backend.sim.workloads.checks import WorkloadError

#: A call that is ready so soon after what it needs was not waited for by a client: the server took
#: the time itself.
_SERVER_S = 0.005

#: The shortest think time, for a client that answered at once: simulated ones without any answer
#: make no round trip.
_SHORTEST_THINK_S = 1e-6


@dataclass(frozen=True, slots=True)
class SeenSession:
    """A session as it was looked at.

    Attributes:
        seen_s: When, on any clock; the same for all sessions.
        view: What the server showed.
        prompts: Prompts of calls by their outputs, as far as they are known.
        tenant: Whose it is, which the view does not show.
    """

    seen_s: float
    view: SessionView
    prompts: Mapping[str, Sequence[RecordedPart]] = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT


def arrivals_of(
    sessions: Iterable[SeenSession], round_trip_s: float = 0.0, criteria: Criteria = LATENCY
) -> Iterator[Arrival]:
    """Return sessions as arrivals in the order in which they were opened; the first one at 0.

    Args:
        sessions: All of them are held in memory.
        round_trip_s: Of the clients that were recorded; it is taken out of their think times.
        criteria: What is asked for what was wanted, unless it was throughput.

    Raises:
        WorkloadError: In one of them, no call has finished.
    """
    opened = sorted(((seen.seen_s - seen.view.age_s, seen) for seen in sessions), key=_first)
    texts = PieceLengths(prompt for _, seen in opened for prompt in seen.prompts.values())
    for opened_s, seen in opened:
        program = _Reading(seen, round_trip_s, texts).program(criteria)
        yield Arrival(opened_s - opened[0][0], program, f"session-{seen.view.id}")


def program_of(
    view: SessionView, round_trip_s: float = 0.0, criteria: Criteria = LATENCY
) -> Program:
    """Return the program of one session without texts; see :func:`arrivals_of`.

    Raises:
        WorkloadError: No call has finished.
    """
    return _Reading(SeenSession(0.0, view), round_trip_s, PieceLengths(())).program(criteria)


def unfinished(view: SessionView) -> tuple[str, ...]:
    """Return the calls that a program of this session leaves out, for they made nothing."""
    return tuple(
        node.output for node in view.nodes if node.kind == "request" and not _has_run(node)
    )


class _Reading:
    """One session, and what is found in it."""

    def __init__(self, seen: SeenSession, round_trip_s: float, texts: PieceLengths) -> None:
        self._view, self._tenant = seen.view, seen.tenant
        view = seen.view
        self._prompts, self._texts = seen.prompts, texts
        self._round_trip_s = round_trip_s
        self._ran = {n.output: n for n in view.nodes if n.kind == "request" and _has_run(n)}
        self._other = {n.output: n for n in view.nodes if n.kind != "request"}
        self._sources = dict[str, frozenset[str]]()
        ended = dict[int, set[str]]()
        for name, node in self._ran.items():
            if node.finished_s is not None:
                ended.setdefault(_instant(node.finished_s), set()).add(name)
        self._ended_at = {at: frozenset(names) for at, names in ended.items()}

    def program(self, criteria: Criteria) -> Program:
        """Return the program."""
        if not self._ran:
            raise WorkloadError("invalid_program", f"session {self._view.id} has no finished call")
        calls = tuple(map(self._call, self._ran.values()))
        needed = {name for call in calls for name in (*call.reads, *call.after)}
        wanted = tuple(
            (name, THROUGHPUT if node.objective == "throughput" else criteria)
            for name, node in self._ran.items()
            if name not in needed
        )
        program = Program(self._view.app, calls, wanted, self._tenant)
        check_program(program)
        return program

    def _call(self, node: NodeView) -> ProgramCall:
        assert node.usage is not None
        pieces = self._recorded(node) or self._guessed(node)
        read = {piece.call for piece in pieces if isinstance(piece, Output)}
        needs = self._needs(node)
        return ProgramCall(
            node.output,
            pieces,
            max(1, node.usage.completion_tokens),
            stage=_stage(node),
            think_s=self._think_s(node, needs),
            after=tuple(name for name in self._ran if name in needs and name not in read),
        )

    def _recorded(self, node: NodeView) -> tuple[Piece, ...]:
        """Return a prompt as its texts tell it; empty if they are not known."""
        parts = self._prompts.get(node.output)
        if parts is None or node.usage is None or (node.found is not None and node.found.reads):
            return ()
        made = {name: self._output_tokens(name) for name in self._ran}
        return self._texts.pieces(parts, node.usage.prompt_tokens, made, self._view.id)

    def _guessed(self, node: NodeView) -> tuple[Piece, ...]:
        """Return a prompt as its length and what it reads tell it."""
        assert node.usage is not None
        read = [name for name in self._inputs(node) if name in self._ran]
        made = sum(self._output_tokens(name) for name in read)
        own_tokens = node.usage.prompt_tokens - made
        if own_tokens < 0:
            # Something made it shorter on its way: it is waited for, but is not what is read.
            return self._own(node, node.usage.prompt_tokens)
        return prompt(self._own(node, max(own_tokens, 1 - made)), map(Output, read))

    def _own(self, node: NodeView, tokens: int) -> tuple[Piece, ...]:
        assert node.usage is not None
        cached = min(node.usage.cached_tokens, tokens)
        kind = f"{self._view.app}/{_stage(node) or ''}"
        own = f"session/{self._view.id}/{node.output}"
        return prompt(text(f"shared/{kind}", cached), text(own, tokens - cached))

    def _think_s(self, node: NodeView, needs: frozenset[str]) -> float:
        assert node.ready_s is not None
        ended = (self._ran[name].finished_s for name in needs)
        latest_s = max((end_s for end_s in ended if end_s is not None), default=None)
        waited_s = node.ready_s - (latest_s or 0.0)
        if waited_s <= _SERVER_S:
            return 0.0
        on_the_way_s = 0.0 if latest_s is None else self._round_trip_s
        return max(_SHORTEST_THINK_S, waited_s - on_the_way_s)

    def _output_tokens(self, name: str) -> int:
        usage = self._ran[name].usage
        assert usage is not None
        return max(1, usage.completion_tokens)

    def _inputs(self, node: NodeView) -> tuple[str, ...]:
        found = () if node.found is None else node.found.reads
        return tuple(dict.fromkeys((*node.inputs, *found)))

    def _needs(self, node: NodeView) -> frozenset[str]:
        """Return the calls that had to end before a call could run."""
        direct = (self._sources_of(name) for name in self._inputs(node))
        return frozenset[str]().union(*direct, self._begun_by(node)) - {node.output}

    def _sources_of(self, name: str) -> frozenset[str]:
        """Return the calls that a variable comes from, by way of transforms and control flow."""
        if name in self._ran:
            return frozenset({name})
        node = self._other.get(name)
        if node is None:
            return frozenset()
        if name not in self._sources:
            ways = map(self._sources_of, node.inputs)
            self._sources[name] = frozenset[str]().union(*ways, self._begun_by(node))
        return self._sources[name]

    def _begun_by(self, node: NodeView) -> frozenset[str]:
        """Return the calls that decided on an instance of a map, a branch or a loop.

        What a control node waited for is not shown once its instances are there, but they were made
        at the very time when it came.
        """
        if ":" not in node.output:
            return frozenset()
        return self._ended_at.get(_instant(node.created_s), frozenset())


def _has_run(node: NodeView) -> bool:
    return node.state == "finished" and node.usage is not None and node.ready_s is not None


def _instant(time_s: float) -> int:
    return round(time_s * 1e9)


def _stage(node: NodeView) -> str | None:
    if node.stage is None and node.found is not None:
        return f"found-{node.found.template}"
    return node.stage


def _first(opened: tuple[float, SeenSession]) -> float:
    return opened[0]
