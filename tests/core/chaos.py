"""Plays scripts of numbers on a core: whatever the numbers are, they become a possible history.

A script is a list of operations, each four small numbers: what to do, and with what. Numbers are
taken modulo what there is, so that every script can be played and Hypothesis can make any script
shorter. ``Chaos.step`` plays one operation, ``Chaos.drain`` lets everything end well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TypeVar

import pytest
from hypothesis import strategies as st

from parrot_backend.core.commands import AbortRequest, AnswerWaiter
from parrot_backend.core.config import (
    CoreConfig,
    EarlyFillConfig,
    OptimiserConfig,
    OrderingName,
    PlacementName,
    SchedulerConfig,
)
from parrot_backend.core.control import ControlNode
from parrot_backend.core.control_specs import (
    BodySpec,
    BranchSpec,
    CaseSpec,
    Condition,
    ControlSpec,
    LoopSpec,
    LoopVariable,
    MapSpec,
)
from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.events import (
    CallSpec,
    CancelRequested,
    EngineJoined,
    EngineLost,
    EngineReported,
    Event,
    GraphSubmitted,
    NodeSpec,
    RequestFailed,
    SessionClosed,
    TokensGenerated,
    TransformSpec,
    ValueRequested,
    VariableSet,
    VariableSpec,
    WaitersLeft,
    Wanted,
)
from parrot_backend.core.ids import (
    AttemptId,
    EngineId,
    SessionId,
    VariableId,
    WaiterId,
    name_of,
    variable_id,
)
from parrot_backend.core.prefix import PrefixBoundary, PrefixIndexConfig
from parrot_backend.core.prompt import Input, Output, Role, Segment, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.session import Session
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.core.transforms import JsonField, Split, SplitList, Strip, Transform
from parrot_backend.core.variable import Variable
from parrot_backend.errors import ParrotError
from tests.core.audit import (
    BLIND,
    Audit,
    foresight_of,
    mentions,
    prefixes_of,
    snapshot,
    splicing_of,
)
from tests.core.declared import made_by
from tests.helpers.builders import make_engine
from tests.helpers.core_driver import CoreDriver, finished, of_type

Op = tuple[int, int, int, int]
_T = TypeVar("_T")


def _ops(numbers: bytes) -> list[Op]:
    return [(n[0], n[1], n[2], n[3]) for n in zip(*[iter(numbers)] * 4, strict=True)]


#: Scripts of a length at which something happens.
SCRIPTS = (
    st.integers(5, 70)
    .flatmap(lambda length: st.binary(min_size=4 * length, max_size=4 * length))
    .map(_ops)
)

CRITERIA = (
    Criteria(CriteriaKind.LATENCY),
    Criteria(CriteriaKind.THROUGHPUT),
    Criteria(CriteriaKind.UNSTATED),
    Criteria(CriteriaKind.UNSTATED, tpot_s=0.5),
    Criteria(CriteriaKind.LATENCY, deadline_s=50.0),
    Criteria(CriteriaKind.LATENCY, deadline_s=20.0, ttft_s=1.0),
)
#: What engines generate and clients set: some values make transforms fail.
TEXTS = ("plain", '{"a": "field"}', " padded ", "left,right", "", "plain" * 40)
TRANSFORMS: tuple[tuple[Transform, ...], ...] = (
    (),
    (),
    (Strip(),),
    (JsonField("a"),),
    (Split(",", 1), Strip()),
)
#: Past each of the core's limits now and then: on age, on silence, on idle sessions.
WAITS_S = (0.5, 1.0, 1.0, 5.0, 5.0, 31.0, 31.0, 125.0, 601.0)
STEP_TIME = StepTimeModel(0.01, 1e-5, 1e-4, 1e-8, 1e-9, num_samples=9, error=0.1)
ORDERINGS: tuple[OrderingName | None, ...] = (
    None,
    "critical_path",
    "shortest_job",
    "attained_service",
)
PLACEMENTS: tuple[PlacementName, ...] = tuple(name for blind in BLIND for name in ("paper", blind))


class Chaos:
    """A driver that is told by numbers what happens next.

    Args:
        seed: Chooses the configuration.
        models: The models that calls may name; engines serve some of them.
        max_backlog: Fills that are put off.
    """

    def __init__(
        self, seed: int = 0, models: tuple[str, ...] = ("m",), max_backlog: int = 3
    ) -> None:
        scheduler = SchedulerConfig(
            placement=PLACEMENTS[seed % len(PLACEMENTS)],
            ordering=ORDERINGS[seed // 3 % len(ORDERINGS)],
            fair=seed % 6 != 5,
            max_backfill=(8, 0, 2)[seed % 3],
        )
        config = CoreConfig(
            scheduler,
            PrefixIndexConfig(min_tokens=(4, 32, 8)[seed % 3]),
            EarlyFillConfig(
                is_on=seed % 5 != 4,
                min_tokens=(4, 40, 8)[seed % 3],
                max_per_engine=1 + seed % 2,
                max_backlog=max_backlog,
            ),
            optimiser=OptimiserConfig(
                merges=seed % 3 != 2, result_cache_bytes=(0, 3_000, 100_000)[seed // 2 % 3]
            ),
            retain_prefixes=seed % 7 != 6,
            splice=seed % 4 != 3,
            max_nodes_per_session=40,
            max_unfinished_calls=60,
            max_attempts=1 + seed % 3,
        )
        self.driver = CoreDriver(config=config, observers=[Audit()])
        self.config = config
        self._models = models
        self._num_sessions = 0
        self._num_names = 0
        self._num_engines = 0
        self._num_waiters = 0
        self._keyed: list[GraphSubmitted] = []
        self._plays = (
            *(self._open, self._open, self._extend, self._extend, self._repeat, self._set),
            *(self._set, self._get, self._get, self._leave, self._cancel, self._close),
            *(self._join, self._join, self._lose, self._say, self._say, self._say),
            *(self._finish, self._finish),
            *(self._finish, self._finish, self._finish, self._fail, self._fail, self._stale),
            *(self._wait, self._misuse, self._end_fill, self._report),
        )

    def play(self, script: Iterable[Op]) -> None:
        """Play a whole script, with one engine to begin with."""
        self._join(1, 0, 0)
        for op in script:
            self.step(op)

    def step(self, op: Op) -> None:
        """Play one operation; one that makes no sense now does nothing."""
        kind, a, b, c = op
        self._plays[kind % len(self._plays)](a, b, c)

    # --- clients ---------------------------------------------------------------------------

    def _open(self, a: int, b: int, c: int) -> None:
        session = SessionId(f"session{self._num_sessions:03d}")
        self._num_sessions += 1
        self._submit(session, None, a, b, c)

    def _extend(self, a: int, b: int, c: int) -> None:
        session = pick(self._open_sessions(), a)
        if session is not None:
            self._submit(session.id, session, a // 7, b, c)

    def _submit(self, session: SessionId, live: Session | None, a: int, b: int, c: int) -> None:
        known = () if live is None else tuple(live.graph.variables)
        nodes, externals, made = self._graph(session, known, a, b, c)
        variables = (*known, *(variable_id(session, e.name) for e in externals), *made)
        wanted = tuple(
            Wanted(v, CRITERIA[(a + i) % 4], self._waiter(b + i), (b + i) % 4 < 2)
            for i, v in enumerate(variables)
            if (c + i) % 3 == 0
        )
        submission = GraphSubmitted(
            session,
            live is None,
            tenant=f"tenant{int(session[7:]) % 2}",
            idempotency_key=f"key{self._num_names}" if a % 4 == 0 else None,
            variables=tuple(externals),
            nodes=tuple(nodes),
            wanted=wanted,
            quiet=b % 2 == 0,
        )
        if self._try(submission) and submission.idempotency_key is not None:
            self._keyed.append(submission)

    def _try(self, submission: GraphSubmitted) -> bool:
        """Submit what may be too much."""
        try:
            self.driver.send(submission)
        except ParrotError as error:
            if error.code not in ("saturated", "graph_too_large", "unknown_model"):
                raise
            return False
        return True

    def _graph(
        self, session: SessionId, known: tuple[VariableId, ...], a: int, b: int, c: int
    ) -> tuple[list[NodeSpec], list[VariableSpec], list[VariableId]]:
        """Return nodes in a scrambled order, external variables and the outputs."""
        externals = [
            VariableSpec(self._name("e"), None if (a >> i) % 2 else TEXTS[(b + i) % len(TEXTS)])
            for i in range(a % 3)
        ]
        readable = [*known, *(variable_id(session, e.name) for e in externals)]
        nodes: list[NodeSpec] = []
        made: list[VariableId] = []
        for i in range(1 + b % 6):
            chosen = (c * 31 + b * 7 + i * 13) % 1009
            node, outputs = self._node(session, readable, chosen)
            nodes.append(node)
            made += outputs
            readable += outputs
        turn = c % len(nodes)
        return nodes[turn:] + nodes[:turn], externals, made

    def _node(
        self, session: SessionId, readable: list[VariableId], chosen: int
    ) -> tuple[NodeSpec, list[VariableId]]:
        inputs: list[Input] = [
            Input(readable[-1 - (chosen // (3 + i)) % len(readable)], pick_transforms(chosen + i))
            for i in range(min(len(readable), chosen % 3))
        ]
        if chosen % 6 in (1, 4) and chosen % 5 == 2 and readable:
            control = self._control(session, readable, chosen)
            return control, [control.output]
        outputs = [variable_id(session, self._name("v")) for _ in range((1, 1, 2, 3)[chosen % 4])]
        if chosen % 5 == 0:
            name, content = self._name("t"), _content(inputs)
            spec = TransformSpec(name, content, pick_transforms(chosen // 5), outputs[0])
            return spec, outputs[:1]
        segments: list[Segment] = [Role("user")] if chosen % 2 else []
        segments += [Text("a prompt that some share " * (chosen % 3) + "."), *inputs]
        for i, output in enumerate(outputs):
            max_tokens, is_greedy = (8, 40, 300)[(chosen + i) % 3], chosen % 8 < 5
            sampling = Sampling(max_tokens=max_tokens, temperature=0.0 if is_greedy else 1.0)
            segments += [Output(output, sampling)]
            segments += [Text(f" and {i} ")] * (chosen % 2)
        model = (None, *self._models)[chosen % (1 + len(self._models))]
        return CallSpec(self._name("c"), tuple(segments), model), outputs

    def _control(
        self, session: SessionId, readable: list[VariableId], chosen: int, level: int = 0
    ) -> ControlSpec:
        """Return a control node; bodies may hold others."""
        name, output = self._name("k"), variable_id(session, self._name("v"))
        asked = readable[-1 - chosen % 5 % len(readable)]
        condition = Condition(
            Input(asked, pick_transforms(chosen // 3)), "contains", "plain", negate=chosen % 2 == 0
        )
        match chosen // 8 % 3:
            case 0:
                split = SplitList(("l", " ", ",")[chosen % 3])
                item = variable_id(session, self._name("p"))
                body = self._body(session, readable, [item], chosen // 2, level)
                items = Input(asked, (split,) if chosen % 11 else ())
                return MapSpec(name, items, item, body, output, max_items=1 + chosen % 4)
            case 1:
                cases = tuple(
                    CaseSpec(condition, self._body(session, readable, [], chosen // (2 + i), level))
                    for i in range(1 + chosen % 2)
                )
                other = self._body(session, readable, [], chosen // 5, level)
                return BranchSpec(name, cases, other, output)
        item = variable_id(session, self._name("p"))
        body = self._body(session, readable, [item], chosen // 2, level)
        makes = [v for spec in body.nodes for v in made_by(spec)]
        variable = LoopVariable(item, asked, [item, *makes][chosen % (1 + len(makes))])
        until = Condition(Input([item, *makes][-1]), "contains", "plain", negate=chosen % 4 == 1)
        return LoopSpec(name, (variable,), body, until, 1 + chosen % 3, output)

    def _body(
        self,
        session: SessionId,
        readable: list[VariableId],
        own: list[VariableId],
        chosen: int,
        level: int,
    ) -> BodySpec:
        readable, nodes = [*readable, *own], list[NodeSpec]()
        for i in range(chosen % 3):
            if level < 2 and (chosen + i) % 4 == 0:
                control = self._control(session, readable, chosen // 2 + i, level + 1)
                nodes.append(control)
                readable.append(control.output)
                continue
            number = 5 * (1 + (chosen + i) % 11) + chosen % 2  # no control node by itself
            node, outputs = self._node(session, readable, number)
            nodes.append(node)
            readable += outputs
        return BodySpec(tuple(nodes[::-1]), readable[-1 - chosen % 2 % len(readable)])

    def _repeat(self, a: int, b: int, c: int) -> None:
        first = pick(self._keyed, a)
        if first is None:
            return
        if (
            self.driver.coordinator.session_of_key(first.tenant, first.idempotency_key or "")
            is None
        ):
            return
        session = SessionId("again")
        wanted = tuple(
            Wanted(
                variable_id(session, name_of(w.variable)), w.criteria, self._waiter(b), c % 2 == 0
            )
            for w in first.wanted
        )
        self.driver.send(
            GraphSubmitted(
                session, True, first.tenant, idempotency_key=first.idempotency_key, wanted=wanted
            )
        )

    def _set(self, a: int, b: int, c: int) -> None:
        variable = pick([v for v in self._variables() if v.producer is None], a)
        if variable is None:
            return
        event = VariableSet(variable.id, TEXTS[b % len(TEXTS)])
        if variable.is_settled:
            self._refused(event, "variable_already_set")
        else:
            self.driver.send(event)

    def _get(self, a: int, b: int, c: int) -> None:
        being_made = [self.driver.request_of(attempt).output for attempt in self.driver.running]
        variables = self._variables()
        likely = [v for v in variables if v.id in being_made] if b % 2 else []
        variable = pick(likely or variables, a)
        waiter = self._waiter(1)
        if variable is not None and waiter is not None:
            criteria = (None, *CRITERIA)[b % 5]
            self.driver.send(ValueRequested(waiter, variable.id, criteria, c % 2 == 0))

    def _leave(self, a: int, b: int, c: int) -> None:
        waiter = pick([w for v in self._variables() for w in v.waiters], a) or WaiterId("nobody")
        waiters = [waiter]
        if c % 3 == 0:  # several go at once, as when a client is gone
            waiters += [w for v in self._variables() for w in v.waiters][a % 2 :: 2]
        commands = self.driver.send(WaitersLeft(tuple(waiters), cancel=b % 2 == 0))
        # Who goes takes nothing away from anybody else.
        assert [c for c in commands if isinstance(c, AnswerWaiter)] == []

    def _cancel(self, a: int, b: int, c: int) -> None:
        session = pick(list(self.driver.coordinator.sessions), a)
        if session is None:
            return
        variables = list(session.graph.variables.values())
        targets = [v for i, v in enumerate(variables) if (b + i) % 3 == 0]
        ids = None if c % 8 == 0 else tuple(v.id for v in targets)
        expected = given_up(session, variables if ids is None else targets)
        running = {
            attempt
            for attempt in self.driver.running
            if self.driver.request_of(attempt).output in expected
        }
        early = {
            attempt
            for attempt in (*self.driver.fills, *self.driver.staged)
            if self.driver.request_of(attempt).output in expected
        }
        before = {v.id for v in variables if v.is_settled}
        commands = self.driver.send(CancelRequested(session.id, ids))
        after = {v.id for v in variables if v.is_settled}
        assert after - before == expected
        aborts = of_type(commands, AbortRequest)
        assert {c.attempt for c in aborts if not c.is_early} == running
        assert {c.attempt for c in aborts if c.is_early} == early

    def _close(self, a: int, b: int, c: int) -> None:
        session = pick(list(self.driver.coordinator.sessions), a)
        if session is not None:
            self.driver.send(SessionClosed(session.id))
            assert mentions(self.driver, session.id) == []

    def _misuse(self, a: int, b: int, c: int) -> None:
        """Send what must be refused."""
        session = pick(self._open_sessions(), a)
        variable = pick([v for v in self._variables() if v.producer is not None], b)
        nowhere = VariableId("nosession.x")
        events: list[tuple[Event, str]] = [
            (SessionClosed(SessionId("nosession")), "unknown_session"),
            (VariableSet(nowhere, "x"), "unknown_session"),
            (ValueRequested(WaiterId("w"), nowhere), "unknown_session"),
            (CancelRequested(SessionId("nosession")), "unknown_session"),
        ]
        if session is not None:
            events += self._bad_submits(session)
        if variable is not None:
            events.append((VariableSet(variable.id, "x"), "variable_has_producer"))
        for engine in self.driver.live_engines.values():
            events.append((EngineJoined(engine), "engine_exists"))
        event, code = events[c % len(events)]
        self._refused(event, code)

    def _bad_submits(self, session: Session) -> list[tuple[Event, str]]:
        absent = variable_id(session.id, "absent")
        new = variable_id(session.id, "new")
        step = CallSpec("new", (Text("p"), Output(new, Sampling())))
        loop = CallSpec("new", (Text("p"), Input(new), Output(new, Sampling())))
        reader = CallSpec("new", (Input(absent), Output(new, Sampling())))
        silent = CallSpec("new", (Text("p"),))
        want_absent = (Wanted(absent, CRITERIA[0], WaiterId("w")),)
        taken = tuple(VariableSpec(name_of(v)) for v in session.graph.variables)[:1]

        def more(*nodes: NodeSpec, wanted: tuple[Wanted, ...] = ()) -> GraphSubmitted:
            return GraphSubmitted(session.id, False, session.tenant, nodes=nodes, wanted=wanted)

        bad: list[tuple[Event, str]] = [
            (more(step, step), "duplicate_call"),
            (more(loop), "cycle_in_graph"),
            (more(reader), "unknown_variable"),
            (more(silent), "template_without_output"),
            (more(step, wanted=want_absent), "unknown_variable"),
            (GraphSubmitted(session.id, True, session.tenant), "session_exists"),
            (GraphSubmitted(session.id, False, "somebody else"), "unknown_session"),
        ]
        if taken:
            event = GraphSubmitted(
                session.id, False, session.tenant, variables=taken, nodes=(step,)
            )
            bad.append((event, "duplicate_variable"))
        return bad

    def _refused(self, event: Event, code: str) -> None:
        """(b): a refused event leaves the state as it was."""
        before = snapshot(self.driver)
        with pytest.raises(ParrotError) as caught:
            self.driver.send(event)
        assert caught.value.code in (code, "graph_too_large")
        assert snapshot(self.driver) == before

    # --- engines ---------------------------------------------------------------------------

    def _join(self, a: int, b: int, c: int) -> None:
        name = f"e{self._num_engines}"
        self._num_engines += 1
        self.driver.join(
            make_engine(
                name,
                models=self._models if a % 3 else self._models[: 1 + a % len(self._models)],
                capacity_tokens=(1000, 400, 50)[b % 3],
                latency_capacity_tokens=(300, 100)[c % 2],
                max_requests=(4, 1, 2, 16)[(b + c) % 4],
                keeps_prefixes=(a + b) % 3 != 0,
                takes_updates=(a + c) % 2 == 1,
                splices=(a + b + c) % 3 != 0,
            )
        )

    def _lose(self, a: int, b: int, c: int) -> None:
        engines = list(self.driver.live_engines)
        engine = pick(engines if len(engines) > 1 or b % 4 == 0 else [], a) or EngineId("unknown")
        self.driver.send(EngineLost(engine, "the script says so"))

    def _say(self, a: int, b: int, c: int) -> None:
        attempt = pick(list(self.driver.running), a)
        if attempt is not None:
            self.driver.send(TokensGenerated(attempt, TEXTS[b % len(TEXTS)], 1))

    def _finish(self, a: int, b: int, c: int) -> None:
        attempt = pick(list(self.driver.running), a)
        if attempt is not None:
            tokens = (1, 2, 3) if c % 2 else None
            text, spliced = TEXTS[b % len(TEXTS)], self._spliced(attempt, a + b + c)
            self.driver.send(finished(attempt, text, token_ids=tokens, spliced=spliced))

    def _spliced(self, attempt: AttemptId, number: int) -> tuple[AttemptId, ...]:
        """Let the engine go on or not, perhaps with what was taken back in the meantime."""
        staged = self.driver.staged_after(attempt) if number % 3 else ()
        gone = [a for a in self.driver.aborted if "~s" in a] if number % 5 == 0 else []
        return (*gone[-1:], *staged)

    def _fail(self, a: int, b: int, c: int) -> None:
        attempt = pick(list(self.driver.running), a)
        if attempt is not None:
            self.driver.send(RequestFailed(attempt, "engine_failed", "it did", b % 3 != 0))

    def _end_fill(self, a: int, b: int, c: int) -> None:
        attempt = pick(list(self.driver.fills), a)
        if attempt is None:
            return
        commands = self.driver.send(
            RequestFailed(attempt, "engine_failed", "it did", c % 2 == 0)
            if b % 3 == 0
            else finished(attempt, "")
        )
        assert of_type(commands, AnswerWaiter) == []

    def _report(self, a: int, b: int, c: int) -> None:
        """Let an engine say that it holds and lost what some prompts begin with."""
        engine = pick(list(self.driver.live_engines), a) or EngineId("unknown")
        chains = [log.start.prefixes for log in self.driver.running.values()]
        chains += [fill.prefixes for fill in self.driver.fills.values()]
        boundaries = [PrefixBoundary(b"elsewhere", 64), *itertools.chain.from_iterable(chains)]
        held = [known for i, known in enumerate(boundaries) if (b + i) % 3 == 0]
        lost = [known.hash for i, known in enumerate(boundaries) if (b + i) % 3 == 1]
        model = STEP_TIME if c % 4 == 0 else None
        self.driver.send(EngineReported(engine, tuple(held), tuple(lost), c % 3 == 0, model))
        index = prefixes_of(self.driver.coordinator)
        if engine in self.driver.live_engines:
            assert all(index.holds(engine, boundary.hash) for boundary in held)

    def _stale(self, a: int, b: int, c: int) -> None:
        """(i): what an ended attempt still says is not heard, nor what one says that is staged."""
        silent = [*self.driver.ended, *self.driver.aborted, *self.driver.staged]
        attempt = pick(silent, a) or AttemptId("s.x#0~1")
        events: tuple[Event, ...] = (
            TokensGenerated(attempt, "late", 1),
            finished(attempt, "late"),
            RequestFailed(attempt, "late", "late", b % 2 == 0),
        )
        # Time may have passed since the last event: let it show before the comparison.
        self.driver.send(EngineLost(EngineId("unknown"), ""))
        before = snapshot(self.driver)
        assert self.driver.coordinator.handle(events[c % 3], self.driver.now_s) == []
        assert snapshot(self.driver) == before

    def _wait(self, a: int, b: int, c: int) -> None:
        self.driver.run_until(self.driver.now_s + WAITS_S[a % len(WAITS_S)])

    # --- the end ---------------------------------------------------------------------------

    def drain(self) -> None:
        """(k): let everything go well from now on; nothing may be left waiting."""
        self.driver.join(
            make_engine(
                "last",
                models=self._models,
                keeps_prefixes=len(self._keyed) % 2 == 0,
                splices=self._num_names % 2 == 0,
            )
        )
        while self.driver.running or self._unset():
            for attempt in list(self.driver.running)[:1]:
                spliced = self._spliced(attempt, len(self.driver.history))
                self.driver.send(finished(attempt, "well", spliced=spliced), after_s=0.01)
            for variable in self._unset()[:1]:
                self.driver.send(VariableSet(variable.id, "well"))
        assert self.driver.coordinator.num_waiting == 0
        assert self.driver.coordinator.num_unfinished_calls == 0
        assert all(v.is_settled and not v.waiters for v in self._variables())
        self._check_nothing_is_kept()

    def end(self) -> None:
        """(a), (e), (f): end all sessions; everybody has an answer and nothing is left over."""
        for session in list(self.driver.coordinator.sessions):
            self.driver.send(SessionClosed(session.id))
        core = self.driver.coordinator
        assert core.num_waiting == 0
        assert core.num_unfinished_calls == 0
        assert self.driver.running == {}
        self._check_nothing_is_kept()
        for engine in core.engines.values():
            assert (engine.used_tokens, engine.latency_tokens) == (0, 0)
        for number in range(self._num_sessions):
            assert mentions(self.driver, f"session{number:03d}") == []
        events = [event for event, _, _ in self.driver.history]
        asked = {e.waiter for e in events if isinstance(e, ValueRequested)}
        for event in events:
            if isinstance(event, GraphSubmitted):
                asked |= {w.waiter for w in event.wanted if w.waiter is not None}
        left = {w for e in events if isinstance(e, WaitersLeft) for w in e.waiters}
        assert asked - left <= set(self.driver.answers) <= asked

    def _check_nothing_is_kept(self) -> None:
        """(f): no request is to come, so nothing is filled, staged, counted or kept."""
        foresight = foresight_of(self.driver.coordinator)
        assert (len(foresight.retention), len(foresight.fills)) == (0, 0)
        assert self.driver.fills == {}
        assert self.driver.staged == {}
        assert len(splicing_of(self.driver.coordinator)) == 0
        assert not any(self.driver.kept.values())

    # --- picking ---------------------------------------------------------------------------

    def _open_sessions(self) -> list[Session]:
        return [s for s in self.driver.coordinator.sessions if not s.is_closed]

    def _variables(self) -> list[Variable]:
        sessions = self.driver.coordinator.sessions
        return [v for session in sessions for v in session.graph.variables.values()]

    def _unset(self) -> list[Variable]:
        return [v for v in self._variables() if v.producer is None and not v.is_settled]

    def _name(self, prefix: str) -> str:
        self._num_names += 1
        return f"{prefix}{self._num_names}"

    def _waiter(self, number: int) -> WaiterId | None:
        if number % 2 == 0:
            return None
        self._num_waiters += 1
        return WaiterId(f"w{self._num_waiters - 1}")


def pick(items: list[_T], number: int) -> _T | None:
    """Return one of the items, or None if there are none."""
    return items[number % len(items)] if items else None


def pick_transforms(number: int) -> tuple[Transform, ...]:
    """Return a chain of transforms."""
    return TRANSFORMS[number % len(TRANSFORMS)]


def _content(inputs: list[Input]) -> tuple[Text | Input, ...]:
    return (Text("<"), *inputs)


def given_up(session: Session, targets: Iterable[Variable]) -> set[VariableId]:
    """(j): return what a cancellation must settle, found by trying until nothing changes."""
    graph = session.graph
    lost = {v.id for v in targets if not v.is_settled}
    while True:
        more = {
            node.output
            for node in graph.nodes.values()
            if not node.has_ended and any(used in lost for used in node.inputs)
        }
        made = {
            variable
            for node in graph.nodes.values()
            if isinstance(node, ControlNode) and node.output in lost
            for variable in node.made
        }
        for variable in graph.variables.values():
            readers = [node for node in graph.nodes.values() if variable.id in node.reads]
            is_needed = (
                variable.is_settled
                or variable.producer is None
                or variable.waiters
                or variable.id in session.annotations
                or any(not node.has_ended and node.output not in lost for node in readers)
                or not (variable.id in made or any(node.output in lost for node in readers))
            )
            if not is_needed:
                more.add(variable.id)
        if more <= lost:
            return lost
        lost |= more
