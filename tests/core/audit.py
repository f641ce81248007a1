"""What must hold after every event, whatever happened: checked on the core's public surface.

:class:`Audit` is an observer of the driver. Letters in the docstrings are those of the list in
``tests/core/test_properties.py``.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from parrot_backend.core.commands import AnswerWaiter, Command, StageRequest, StartRequest
from parrot_backend.core.config import CoreConfig, PlacementName
from parrot_backend.core.control import ControlNode
from parrot_backend.core.coordinator import Coordinator
from parrot_backend.core.events import (
    EngineInfo,
    Event,
    GraphSubmitted,
    TokensGenerated,
    ValueRequested,
    WaitersLeft,
)
from parrot_backend.core.foresight import Foresight
from parrot_backend.core.ids import (
    AttemptId,
    NodeId,
    VariableId,
    WaiterId,
    name_of,
    variable_id,
)
from parrot_backend.core.nodes import Node, NodeState, Request
from parrot_backend.core.prefix import PrefixIndex, prefix_chain
from parrot_backend.core.prompt import (
    InPlace,
    Input,
    Output,
    PartKind,
    PromptPart,
    Role,
    Segment,
    Text,
)
from parrot_backend.core.session import Session
from parrot_backend.core.splicing import Splicing
from parrot_backend.core.transforms import TransformError, apply_transforms
from parrot_backend.core.variable import Variable, VariableState
from tests.core.declared import Declared
from tests.core.outlook_audit import check_outlook
from tests.helpers.core_driver import (
    Behaviour,
    CoreDriver,
    FillBehaviour,
    SpliceBehaviour,
    early_node,
)

#: The state of a variable whose producer is in a state.
STATE_OF_OUTPUT = {
    NodeState.FINISHED: VariableState.READY,
    NodeState.FAILED: VariableState.FAILED,
    NodeState.CANCELLED: VariableState.CANCELLED,
}

#: Placements that let as much latency-sensitive work run together as fits.
BLIND: tuple[PlacementName, ...] = (
    "cost",
    "fcfs",
    "least_loaded",
    "round_robin",
    "power_of_two",
    "session_affinity",
    "cache_aware",
    "kv_exact",
)


def audited_driver(
    *engines: EngineInfo,
    config: CoreConfig | None = None,
    behaviour: Behaviour | None = None,
    fill_behaviour: FillBehaviour | None = None,
    splice_behaviour: SpliceBehaviour = lambda _stage: True,
) -> CoreDriver:
    """Return a driver whose core is checked after every event."""
    return CoreDriver(
        *engines,
        config=config,
        behaviour=behaviour,
        fill_behaviour=fill_behaviour,
        splice_behaviour=splice_behaviour,
        observers=[Audit()],
    )


class Audit:
    """Checks the core after each event and remembers what must not change."""

    def __init__(self) -> None:
        self._declared = Declared()
        self._settled: dict[VariableId, tuple[object, ...]] = {}
        self._waiting: dict[WaiterId, tuple[VariableId, bool]] = {}
        self._first_seen: dict[NodeId, None] = {}
        self._followed: dict[NodeId, None] = {}

    def __call__(self, driver: CoreDriver, event: Event, commands: list[Command]) -> None:
        """Check everything."""
        core = driver.coordinator
        self._learn(core, event)
        for command in commands:
            if isinstance(command, StartRequest):
                self._check_prompt(core, command)
            elif isinstance(command, StageRequest):
                self._check_staged_prompt(core, command)
            elif isinstance(command, AnswerWaiter):
                self._check_answer(core, command)
        check_engines(driver)
        check_counts(core)
        for session in core.sessions:
            check_graph(session, driver.config.max_nodes_per_session)
            check_outlook(session)
        for node in nodes_of(core):
            check_node(core, node, driver)
        for variable in variables_of(core):
            self._check_unchanged(variable)
        self._check_waiters(driver)
        check_fills(driver)
        check_staged(driver)
        self._check_retention(driver)

    def _learn(self, core: Coordinator, event: Event) -> None:
        if isinstance(event, GraphSubmitted):
            home = event.session
            if event.idempotency_key is not None:
                home = core.session_of_key(event.tenant, event.idempotency_key) or home
            if home == event.session:
                self._declared.add(home, event.nodes)
            for wanted in event.wanted:
                if wanted.waiter is not None:
                    variable = variable_id(home, name_of(wanted.variable))
                    self._waiting[wanted.waiter] = variable, wanted.stream
        elif isinstance(event, ValueRequested):
            self._waiting[event.waiter] = event.variable, event.stream
        elif isinstance(event, WaitersLeft):
            for waiter in event.waiters:
                self._waiting.pop(waiter, None)

    def _check_prompt(self, core: Coordinator, start: StartRequest) -> None:
        """(h): all inputs are there, and the parts are the declared segments with values."""
        segments, place = self._declared.request(start.node)
        expected = tuple(_resolved(core, segment) for segment in segments[:place])
        assert start.parts == expected
        output = segments[place]
        assert isinstance(output, Output)
        assert start.sampling == output.sampling
        assert start.quiet == core.session(start.session).quiet

    def _check_staged_prompt(self, core: Coordinator, stage: StageRequest) -> None:
        """(o): all is as it will start, but for the gap, where the output of another goes."""
        segments, place = self._declared.request(early_node(stage.attempt))
        parts, gap = stage.parts, segments[stage.gap]
        assert len(parts) == place
        assert isinstance(gap, Output)
        assert parts[stage.gap].token_ids == ()
        for position, part in enumerate(parts):
            assert position == stage.gap or part == _resolved(core, segments[position])
        output = segments[place]
        assert isinstance(output, Output)
        assert (stage.sampling, stage.max_gap_tokens) == (output.sampling, gap.sampling.max_tokens)
        assert stage.quiet == core.session(stage.session).quiet

    def _check_answer(self, core: Coordinator, answer: AnswerWaiter) -> None:
        """(a): a waiter is answered while it waits, with what its variable has become."""
        variable_of, _ = self._waiting.pop(answer.waiter)
        assert answer.variable == variable_of
        assert (answer.value is not None) == (answer.state is VariableState.READY)
        assert (answer.failure is None) == (answer.state is VariableState.READY)
        known = {v.id: v for v in variables_of(core)}.get(variable_of)
        if known is not None:
            assert (answer.state, answer.value) == (known.state, known.value)
            assert answer.failure == known.failure

    def _check_unchanged(self, variable: Variable) -> None:
        """(g): what is settled stays as it is."""
        if not variable.is_settled:
            assert variable.id not in self._settled
            return
        now = (variable.state, variable.value, variable.failure, variable.usage)
        assert self._settled.setdefault(variable.id, now) == now
        if variable.failure is not None:
            assert variable.failure.path[0] == variable.failure.origin
            assert variable.failure.path[-1] == variable.name

    def _check_waiters(self, driver: CoreDriver) -> None:
        """(a): who waits here waits there, for something that may still come."""
        waiting = {
            waiter: (variable.id, is_streaming)
            for variable in variables_of(driver.coordinator)
            for waiter, is_streaming in variable.waiters.items()
        }
        assert waiting == self._waiting
        said = {
            driver.request_of(attempt).output: "".join(log.said)
            for attempt, log in driver.running.items()
        }
        for waiter, (variable_of, is_streaming) in waiting.items():
            assert not driver.coordinator.variable(variable_of).is_settled
            if is_streaming:
                assert driver.streamed.get(waiter, "") == said.get(variable_of, "")

    def _check_retention(self, driver: CoreDriver) -> None:
        """(m): counts are what a recount finds, and engines keep nothing that nobody wants."""
        core = driver.coordinator
        foresight = foresight_of(core)
        unfinished = {n.id: n for n in nodes_of(core) if isinstance(n, Request) and not n.has_ended}
        known = foresight._known
        self._follow(driver, unfinished)
        assert set(known) <= set(unfinished)
        assert set(self._followed) <= set(known)
        counts = Counter[bytes]()
        for node_id, of_node in known.items():
            keys = known_keys(core, unfinished[node_id])
            found = [boundary.hash for boundary in of_node.chain]
            assert found == (keys if node_id in self._followed else keys[: len(found)])
            counts.update(
                boundary.hash
                for boundary in of_node.chain
                if boundary.tokens >= driver.config.prefix_index.min_tokens
            )
        counts.update(foresight.anticipation.wanted())
        if not driver.config.retain_prefixes:
            counts.clear()
        assert len(foresight.retention) == len(counts)
        assert all(foresight.retention.count(key) == number for key, number in counts.items())
        for kept in driver.kept.values():
            assert kept <= set(counts)

    def _follow(self, driver: CoreDriver, unfinished: Mapping[NodeId, Request]) -> None:
        """Note which requests an engine that keeps prefixes could run ever since they came."""
        for node_id, request in unfinished.items():
            is_new = node_id not in self._first_seen
            self._first_seen[node_id] = None
            if not any(
                engine.keeps_prefixes and (request.model is None or request.model in engine.models)
                for engine in driver.live_engines.values()
            ):
                self._followed.pop(node_id, None)
            elif is_new:
                self._followed[node_id] = None
        for node_id in [n for n in self._followed if n not in unfinished]:
            del self._followed[node_id]


def check_fills(driver: CoreDriver) -> None:
    """(n): fills are for different requests that wait, and no engine has too many."""
    core = driver.coordinator
    assert len(foresight_of(core).fills) == len(driver.fills)
    filled = {early_node(attempt): fill for attempt, fill in driver.fills.items()}
    assert len(filled) == len(driver.fills)
    for node_id, fill in filled.items():
        request = core.session(fill.session).graph.nodes[node_id]
        assert isinstance(request, Request)
        assert request.state is NodeState.WAITING
        assert len(fill.parts) == len(request.segments)
        assert 0 < fill.num_known < len(fill.parts)
        keys = known_keys(core, request)
        assert [boundary.hash for boundary in fill.prefixes] == keys[: len(fill.prefixes)]
        assert fill.prefixes[-1].tokens >= driver.config.early_fill.min_tokens
    per_engine = Counter(fill.engine for fill in driver.fills.values())
    assert all(n <= driver.config.early_fill.max_per_engine for n in per_engine.values())
    assert driver.config.early_fill.is_on or not filled


def check_staged(driver: CoreDriver) -> None:
    """(o): what is staged waits for nothing but an attempt that runs on the same engine."""
    core = driver.coordinator
    assert len(splicing_of(core)) == len(driver.staged)
    assert driver.config.splice or not driver.staged
    nodes = {early_node(attempt) for attempt in driver.staged}
    assert len(nodes) == len(driver.staged)
    for attempt, stage in driver.staged.items():
        request, producer = driver.request_of(attempt), driver.request_of(stage.after)
        assert request.state is NodeState.WAITING
        assert request.attempt is None
        assert driver.running[stage.after].start.engine == stage.engine
        missing = [used for used in request.inputs if core.variable(used).value is None]
        assert missing == [producer.output]
        assert request.segments[stage.gap] == InPlace(producer.output)
        assert request.segments[: stage.gap] == producer.segments


def splicing_of(core: Coordinator) -> Splicing:
    """Return what the core has handed to engines early."""
    return core._fleet.splicing


def foresight_of(core: Coordinator) -> Foresight:
    """Return what the core knows of requests to come."""
    return core._fleet.foresight


def prefixes_of(core: Coordinator) -> PrefixIndex:
    """Return what the core knows of the engines' caches."""
    return core._fleet.scheduler.prefixes


def known_keys(core: Coordinator, request: Request) -> list[bytes]:
    """Return the boundaries of a request's prompt up to its first missing value."""
    parts: list[PromptPart] = []
    for segment in request.segments:
        if isinstance(segment, Input | InPlace):
            variable = core.variable(segment.variable)
            if variable.value is None:
                break
            transforms = segment.transforms if isinstance(segment, Input) else ()
            try:
                text = apply_transforms(variable.value, transforms)
            except TransformError:
                break
            parts.append(PromptPart(PartKind.VALUE, text))
        else:
            parts.append(_resolved(core, segment))
    seed = f"{len(request.tenant)}:{request.tenant}/{request.model or ''}"
    return [boundary.hash for boundary in prefix_chain(seed, tuple(parts), 1.0)]


def check_engines(driver: CoreDriver) -> None:
    """(e): accounts are the sums of what runs, and bounded.

    But for a request that runs alone, and for one that the engine began by itself.
    """
    engines = driver.coordinator.engines
    assert set(engines) == set(driver.live_engines)
    for engine_id, engine in engines.items():
        running = list(engine.running.values())
        on_it = [a for a, log in driver.running.items() if log.start.engine == engine_id]
        assert sorted(engine.running) == sorted(on_it)
        if engine.working_set is None:
            assert engine.used_tokens == sum(r.need_tokens for r in running)
        else:
            assert bool(engine.used_tokens) == bool(sum(r.full_tokens for r in running))
            assert engine.used_tokens <= sum(r.full_tokens for r in running)
        assert engine.load.decodes == len(running)
        latency = [r.need_tokens for r in running if r.is_latency]
        assert engine.latency_tokens == sum(latency)
        bounded = [r.need_tokens for r in running if r.is_bounded]
        assert engine.bounded_tokens == sum(bounded)
        assert len(running) <= max(1, engine.info.max_requests)
        if any(driver.running[attempt].is_spliced for attempt in on_it):
            continue
        assert engine.used_tokens <= engine.info.capacity_tokens or len(running) == 1
        if driver.config.scheduler.placement not in BLIND:
            assert sum(bounded) <= engine.info.latency_capacity_tokens or len(bounded) == 1


def check_counts(core: Coordinator) -> None:
    """(f): the counters count what there is."""
    states = Counter(node.state for node in nodes_of(core) if isinstance(node, Request))
    assert core.num_waiting == states[NodeState.READY]
    unfinished = (NodeState.WAITING, NodeState.READY, NodeState.RUNNING)
    assert core.num_unfinished_calls == sum(states[state] for state in unfinished)


def check_node(core: Coordinator, node: Node, driver: CoreDriver) -> None:
    """Nodes, their outputs and the engines tell the same story."""
    output = core.variable(node.output)
    if node.has_ended:
        assert output.state is STATE_OF_OUTPUT[node.state]
    else:
        assert not output.is_settled
    inputs = [core.variable(used) for used in node.inputs]
    if node.state is NodeState.WAITING:
        # (k): it waits for something that may still come, and for nothing that failed.
        assert any(not v.is_settled for v in inputs)
        assert all(v.failure is None for v in inputs)
    elif node.state in (NodeState.READY, NodeState.RUNNING, NodeState.FINISHED):
        assert all(v.state is VariableState.READY for v in inputs)
    if isinstance(node, Request):
        is_running = node.state is NodeState.RUNNING
        assert is_running == (node.attempt in driver.running)
        if node.attempt is not None and is_running:
            assert driver.running[node.attempt].start.parts == node.parts
            assert driver.running[node.attempt].start.engine == node.engine


def check_graph(session: Session, max_nodes: int) -> None:
    """(p): the order is topological, and instances lie where their names say."""
    graph = session.graph
    assert len(graph.nodes) <= max_nodes
    assert len({node.index for node in graph.nodes.values()}) == len(graph.nodes)
    assert graph.text_chars >= sum(len(v.value) for v in graph.variables.values() if v.value)
    for node in graph.nodes.values():
        for before in graph.predecessors(node):
            assert before.index < node.index
            assert before.depth < node.depth
            assert before.remaining > node.remaining or before.has_ended
        if not isinstance(node, ControlNode):
            continue
        made = [v for v in graph.variables.values() if v.id.startswith(f"{node.output}:")]
        if node.ready_s is None:
            assert made == []
        if node.has_ended:
            assert node.state is not NodeState.FINISHED or not node.captures
            continue
        for used in node.reads:
            variable = graph.variables[used]
            assert variable.is_settled or node in list(graph.readers(variable))
        for made_id in node.made:
            producer = graph.variables[made_id].producer
            assert producer is not None
            assert producer.startswith(f"{node.id}:")
            assert graph.nodes[producer].index < node.index


def nodes_of(core: Coordinator) -> Iterator[Node]:
    """Yield the nodes of all sessions."""
    for session in core.sessions:
        yield from session.graph.nodes.values()


def variables_of(core: Coordinator) -> Iterator[Variable]:
    """Yield the variables of all sessions."""
    for session in core.sessions:
        yield from session.graph.variables.values()


def _resolved(core: Coordinator, segment: Segment) -> PromptPart:
    match segment:
        case Role(role):
            return PromptPart(PartKind.ROLE, role)
        case Text(text):
            return PromptPart(PartKind.CONSTANT, text)
        case Input(used, transforms):
            variable = core.variable(used)
            assert variable.value is not None
            return PromptPart(PartKind.VALUE, apply_transforms(variable.value, transforms))
        case Output(made):
            variable = core.variable(made)
            assert variable.value is not None
            return PromptPart(PartKind.VALUE, variable.value, variable.token_ids)


# --- whole states ------------------------------------------------------------------------------

#: An attempt that never was: what is said of it must be ignored.
NOBODY = AttemptId("nobody.x#0~1")


class _Pickler(pickle.Pickler):
    """Writes running hashes as what they have come to: they cannot be pickled."""

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, blake2b):
            return bytes, (obj.digest(),)
        return NotImplemented


def snapshot(driver: CoreDriver) -> bytes:
    """Return the whole state as bytes, which are equal as long as nothing changes.

    An ignored event is handled first, so that scratch space of the last event does not count.
    """
    driver.coordinator.handle(TokensGenerated(NOBODY, "", 0), driver.now_s)
    written = io.BytesIO()
    _Pickler(written).dump(driver.coordinator)
    return written.getvalue()


def mentions(driver: CoreDriver, session: str) -> list[str]:
    """Return the strings anywhere in the state that are a session's id or begin with it."""
    state = snapshot(driver)
    if session.encode() not in state:
        return []
    strings = [arg for _, arg, _ in pickletools.genops(state) if isinstance(arg, str)]
    return [s for s in strings if s == session or s.startswith(f"{session}.")]
