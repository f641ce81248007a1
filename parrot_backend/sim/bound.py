"""How fast a program can be at best: what simulated and measured times are compared with.

The bound holds for any scheduler that starts to generate when all of a prompt is there. It is the
longest path of dependent calls, each alone on an engine that is free, with every prefix cached that
can be; and no call begins before so many engines as there are can have done the work of all calls
that it depends on: their prompts, shared parts once, and reading KV that nobody else reads. What is
computed ahead of need, while other calls still run, costs nothing on the path. The bound does not
hold where outputs are streamed into prompts while they are made, where engines guess tokens, or
where steps are not linear in what they compute.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parrot_backend.core.step_time import StepWork
from parrot_backend.sim.plan import check_program
from parrot_backend.sim.program import Constant, Program, ProgramCall
from parrot_backend.sim.prompt_tree import PromptTree
from parrot_backend.sim.spec import ClientSpec, Delay, EngineSpec
from parrot_backend.sim.workloads.checks import at_least

#: Times of a prefix: when its KV is there.
_Held = dict[int, float]


@dataclass(frozen=True, slots=True)
class Bound:
    """The shortest time of a program.

    Attributes:
        job_s: From the client's start until it has the last wanted output.
        path: The calls that determine it, first one first.
    """

    job_s: float
    path: tuple[str, ...]


def bound(
    program: Program,
    engine: EngineSpec,
    client: ClientSpec,
    *,
    num_engines: int = 1,
    warm: Iterable[Program] = (),
    ahead: bool = True,
) -> Bound:
    """Return the bound of a program that finds the engines idle.

    Round trips count with their mean, so this bounds the mean time of jobs, not each single one.

    Args:
        program: What is run.
        engine: All engines are like this one.
        client: How it is sent.
        num_engines: How many there are; more make the bound smaller where calls run in parallel.
        warm: Programs that ran before; prefixes of constants they have are cached.
        ahead: Whether engines may compute what is known of a prompt before the rest is; a server
            that gets single calls knows nothing of them.

    Raises:
        WorkloadError: The program is not well-formed, or there are no engines.
    """
    check_program(program)
    at_least("num_engines", num_engines, 1)
    return _Search(program, engine, client, num_engines, tuple(warm), ahead).run()


class _Search:
    """Follows the calls in the order in which they can begin."""

    def __init__(
        self,
        program: Program,
        engine: EngineSpec,
        client: ClientSpec,
        num_engines: int,
        warm: Sequence[Program],
        ahead: bool,
    ) -> None:
        self._program = program
        self._engine = engine
        self._is_graph = client.kind == "graph"
        self._ahead = ahead and self._is_graph
        self._half_s = _mean_s(client.round_trip) / 2
        self._overhead_s = client.overhead_s
        self._num_engines = num_engines
        self._tree = PromptTree()
        for call in program.calls:
            self._tree.add(call)
        self._warm = frozenset[int]().union(*map(self._tree.known, warm))
        self._held: _Held = dict.fromkeys(self._warm, 0.0)
        self._num_readers = Counter(node for path in self._tree.paths.values() for node in path)
        self._per_context_token_s = _per_context_token_s(engine)
        self._finished_s = dict[str, float]()
        self._came_from = dict[str, str | None]()
        self._ancestors = dict[str, frozenset[str]]()

    def run(self) -> Bound:
        """Return the bound."""
        for call in self._program.calls:
            before = (self._ancestors[name] | {name} for name in _needs(call))
            self._ancestors[call.name] = frozenset[str]().union(*before)
        waiting = {call.name: len(_needs(call)) for call in self._program.calls}
        readers = dict[str, list[ProgramCall]]()
        for call in self._program.calls:
            for name in _needs(call):
                readers.setdefault(name, []).append(call)
        ready = [
            (self._ready_s(call), order, call)
            for order, call in enumerate(self._program.calls)
            if not waiting[call.name]
        ]
        heapq.heapify(ready)
        order = len(self._program.calls)
        while ready:
            ready_s, _, call = heapq.heappop(ready)
            self._finish(call, ready_s)
            for reader in readers.get(call.name, ()):
                waiting[reader.name] -= 1
                if not waiting[reader.name]:
                    order += 1
                    heapq.heappush(ready, (self._ready_s(reader), order, reader))
        wanted = [name for name, _ in self._program.wanted]
        last = max(wanted, key=self._finished_s.__getitem__)
        all_of_it = frozenset(wanted).union(*(self._ancestors[name] for name in wanted))
        worked_s = self._worked_s(all_of_it)
        if worked_s > self._finished_s[last]:
            return Bound(worked_s + self._half_s, (last,))
        return Bound(self._finished_s[last] + self._half_s, self._path_to(last))

    def _ready_s(self, call: ProgramCall) -> float:
        """Return when the server can have all that a call reads, and the word to run it."""
        needs = _needs(call)
        latest = max(needs, key=self._finished_s.__getitem__, default=None)
        self._came_from[call.name] = latest
        done_s = self._finished_s[latest] if latest is not None else None
        ready_s = self._at_server_s(done_s, call.think_s)
        if needs:
            work_s = self._at_server_s(self._worked_s(self._ancestors[call.name]), call.think_s)
            if work_s > ready_s:
                self._came_from[call.name] = None
                return work_s
        return ready_s

    def _at_server_s(self, done_s: float | None, think_s: float) -> float:
        sending_s = self._overhead_s + self._half_s
        if done_s is None:
            return think_s + sending_s
        if self._is_graph and not think_s:
            return done_s
        return done_s + self._half_s + think_s + sending_s

    def _worked_s(self, names: frozenset[str]) -> float:
        """Return when so many engines can have ended these calls, however they share the work.

        The call whose prompt is computed last decodes after that. With one engine, its steps are no
        part of what computes prompts, and all that others read of the KV comes on top.
        """
        calls = [call for call in self._program.calls if call.name in names]
        begun_s = self._overhead_s + self._half_s
        prefill_s = self._prefill_work_s(names)
        reading_s = sum(map(self._reading_s, calls))
        if self._num_engines == 1:
            steps = min(call.output_tokens for call in calls) - 1
            step_s = self._engine.latency.step_s(StepWork(decodes=1))
            return begun_s + prefill_s + reading_s + steps * step_s
        spread_s = (prefill_s + reading_s) / self._num_engines
        last_s = prefill_s / self._num_engines + min(map(self._decode_s, calls))
        return begun_s + max(spread_s, last_s)

    def _reading_s(self, call: ProgramCall) -> float:
        """Return what a call's decoding adds to steps by reading KV that is only its own."""
        path = self._tree.paths[call.name]
        own_tokens = sum(self._tree.tokens[node] for node in path if self._num_readers[node] == 1)
        return self._per_context_token_s * own_tokens * (call.output_tokens - 1)

    def _prefill_work_s(self, names: frozenset[str]) -> float:
        """Return the time of all steps that compute prompts, each shared part once."""
        nodes = [node for name in names for node in self._tree.paths[name]]
        if self._engine.caches_prefixes:
            given = self._warm.union(self._tree.ended[name] for name in names)
            nodes = list(set(nodes) - given)
        own = [(self._tree.end_tokens[node], self._tree.tokens[node]) for node in nodes]
        total = sum(tokens for _, tokens in own)
        if not total:
            return 0.0
        pairs = sum((end - tokens) * tokens + tokens * tokens // 2 for end, tokens in own)
        steps = -(-total // self._engine.max_step_tokens)
        # Steps all alike: the cheapest, where a step's time is linear in what it computes.
        work = StepWork(prefill_tokens=total // steps, prefill_pairs=pairs // steps)
        return steps * self._engine.latency.step_s(work)

    def _finish(self, call: ProgramCall, ready_s: float) -> None:
        path = self._tree.paths[call.name]
        first_s = self._first_token_s(call, ready_s)
        for node in path:
            self._held[node] = min(self._held.get(node, first_s), first_s)
        done_s = first_s + self._decode_s(call)
        self._finished_s[call.name] = self._held[self._tree.ended[call.name]] = done_s

    def _first_token_s(self, call: ProgramCall, ready_s: float) -> float:
        """Return the earliest time of the first token: from the best prefix that is held by then.

        Each part of the prompt is computed after it is known, and all that follows it later still.
        """
        path = self._tree.paths[call.name]
        ends = [self._tree.end_tokens[node] for node in path]
        total = ends[-1]
        known = self._known_from(call, ready_s, ends)
        sources = [(0.0, 0)]
        if self._engine.caches_prefixes:
            grain = self._engine.block_tokens
            sources += [
                (self._held[node], min(end, total - 1) // grain * grain)
                for node, end in zip(path, ends, strict=True)
                if node in self._held
            ]
        return min(
            max(
                max(known_s, held_s) + self._prefill_s(max(begin, held), total)
                for known_s, begin in known
            )
            for held_s, held in sources
        )

    def _known_from(
        self, call: ProgramCall, ready_s: float, ends: Sequence[int]
    ) -> list[tuple[float, int]]:
        """Return since when the parts of a prompt are known, with the places where they begin."""
        if not self._ahead:
            return [(ready_s, 0)]
        begun_s = self._overhead_s + self._half_s
        known = list[tuple[float, int]]()
        for piece, begin in zip(call.prompt, (0, *ends), strict=False):
            known_s = begun_s if isinstance(piece, Constant) else self._finished_s[piece.call]
            if not known or known_s > known[-1][0]:
                known.append((known_s, begin))
        # What the client thinks about is taken to be the last piece.
        last = (ends[-2] if len(ends) > 1 else 0) if call.think_s else ends[-1] - 1
        return [*known, (ready_s, last)]

    def _prefill_s(self, held: int, total: int) -> float:
        time_s = 0.0
        while held < total:
            chunk = min(self._engine.max_step_tokens, total - held)
            time_s += self._engine.latency.step_s(StepWork.prefill(chunk, held))
            held += chunk
        return time_s

    def _decode_s(self, call: ProgramCall) -> float:
        context = self._tree.end_tokens[self._tree.paths[call.name][-1]]
        return self._engine.latency.decode_run_s(1, context, call.output_tokens - 1)

    def _path_to(self, name: str) -> tuple[str, ...]:
        path = list[str]()
        at: str | None = name
        while at is not None:
            path.append(at)
            at = self._came_from[at]
        return tuple(reversed(path))


def _needs(call: ProgramCall) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*call.reads, *call.after)))


def _per_context_token_s(engine: EngineSpec) -> float:
    """Return what reading a KV token adds to a step at least, at small or large batches."""
    many = 100_000
    return (
        min(
            engine.latency.step_s(StepWork(decodes=decodes, context_tokens=many))
            - engine.latency.step_s(StepWork(decodes=decodes))
            for decodes in (1, engine.max_requests)
        )
        / many
    )


def _mean_s(delay: Delay) -> float:
    return (delay.min_s + delay.max_s) / 2
