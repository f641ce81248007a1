"""Short ways to build the core's records, with defaults that do not matter to most tests.

Names are the client's: ``"x"`` stands for variable ``s.x`` of session ``s``. A *step* is a call
with one output that is named after it, so request ``s.x#0`` makes variable ``s.x``.
"""

from __future__ import annotations

from collections.abc import Iterable

from parrot_backend.closed_set import ConditionOp
from parrot_backend.core.control_specs import (
    BodySpec,
    BranchSpec,
    CaseSpec,
    Condition,
    LoopSpec,
    LoopVariable,
    MapSpec,
)
from parrot_backend.core.criteria import (
    UNANNOTATED,
    Criteria,
    CriteriaKind,
    Objective,
    ObjectiveClass,
)
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.events import (
    CallSpec,
    EngineInfo,
    GraphSubmitted,
    NodeSpec,
    TransformSpec,
    VariableSpec,
    Wanted,
)
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import (
    EngineId,
    NodeId,
    SessionId,
    TaskGroupId,
    VariableId,
    WaiterId,
    name_of,
    variable_id,
)
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixBoundary, PrefixChain
from parrot_backend.core.prompt import Input, Output, Segment, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.scheduling.age_watch import AgeLimits
from parrot_backend.core.transforms import Transform

SESSION = SessionId("s")
LATENCY = Criteria(CriteriaKind.LATENCY)
THROUGHPUT = Criteria(CriteriaKind.THROUGHPUT)


def var(name: str, session: SessionId = SESSION) -> VariableId:
    """Return the id of a session's variable."""
    return variable_id(session, name)


def request_id(name: str, step: int = 0, session: SessionId = SESSION) -> NodeId:
    """Return the id of the request that makes the output number ``step`` of a call."""
    return NodeId(f"{session}.{name}#{step}")


def read(name: str, *transforms: Transform, session: SessionId = SESSION) -> Input:
    """Return a segment that reads a variable."""
    return Input(var(name, session), transforms)


def write(
    name: str,
    *,
    session: SessionId = SESSION,
    max_tokens: int | None = 16,
    stop: tuple[str, ...] = (),
) -> Output:
    """Return a segment that generates a variable."""
    return Output(var(name, session), Sampling(max_tokens=max_tokens, stop=stop))


def make_call(name: str, *segments: str | Segment, model: str | None = None) -> CallSpec:
    """Return a call; strings are constant text."""
    parts = tuple(Text(s) if isinstance(s, str) else s for s in segments)
    return CallSpec(name, parts, model)


def make_step(
    output: str,
    *inputs: str,
    session: SessionId = SESSION,
    model: str | None = None,
    prompt: str | None = None,
    max_tokens: int = 16,
) -> CallSpec:
    """Return a call named after its only output: a text, then the inputs, then the output."""
    return make_call(
        output,
        f"make {output} of " if prompt is None else prompt,
        *(read(name, session=session) for name in inputs),
        write(output, session=session, max_tokens=max_tokens),
        model=model,
    )


def make_steps(*lines: str, session: SessionId = SESSION) -> tuple[CallSpec, ...]:
    """Return one step per line ``"output: input input"``; without a colon it reads nothing."""
    steps: list[CallSpec] = []
    for line in lines:
        output, _, inputs = line.partition(":")
        steps.append(make_step(output.strip(), *inputs.split(), session=session))
    return tuple(steps)


def make_transform(
    output: str,
    *segments: str | Text | Input,
    transforms: tuple[Transform, ...] = (),
    session: SessionId = SESSION,
) -> TransformSpec:
    """Return a transform node named after its output."""
    parts = tuple(Text(s) if isinstance(s, str) else s for s in segments)
    return TransformSpec(output, parts, transforms, var(output, session))


def make_body(result: str, *nodes: NodeSpec | str, session: SessionId = SESSION) -> BodySpec:
    """Return a body; a line ``"output: input input"`` is a step."""
    specs = [
        spec
        for node in nodes
        for spec in (make_steps(node, session=session) if isinstance(node, str) else (node,))
    ]
    return BodySpec(tuple(specs), var(result, session))


def make_map(
    output: str,
    items: str | Input,
    body: BodySpec,
    *,
    item: str = "item",
    max_items: int = 256,
    session: SessionId = SESSION,
) -> MapSpec:
    """Return a map named after its output; a name reads a list value."""
    read_items = read(items, session=session) if isinstance(items, str) else items
    return MapSpec(output, read_items, var(item, session), body, var(output, session), max_items)


def make_condition(
    name: str | Input, op: ConditionOp = "contains", text: str = "", **fields: bool
) -> Condition:
    """Return a condition on a variable."""
    return Condition(read(name) if isinstance(name, str) else name, op, text, **fields)


def make_branch(
    output: str,
    *cases: tuple[Condition, BodySpec],
    otherwise: BodySpec,
    session: SessionId = SESSION,
) -> BranchSpec:
    """Return a branch named after its output."""
    specs = tuple(CaseSpec(when, body) for when, body in cases)
    return BranchSpec(output, specs, otherwise, var(output, session))


def make_loop(
    output: str,
    variables: dict[str, tuple[str, str]],
    body: BodySpec,
    until: Condition,
    *,
    max_rounds: int = 4,
    session: SessionId = SESSION,
) -> LoopSpec:
    """Return a loop named after its output; ``variables`` are parameter: (initial, next)."""
    parameters = tuple(
        LoopVariable(var(name, session), var(initial, session), var(following, session))
        for name, (initial, following) in variables.items()
    )
    return LoopSpec(output, parameters, body, until, max_rounds, var(output, session))


def make_wanted(
    name: str,
    criteria: Criteria = LATENCY,
    waiter: str | None = None,
    *,
    stream: bool = False,
    session: SessionId = SESSION,
) -> Wanted:
    """Return a wanted variable, perhaps with somebody who waits for it."""
    who = None if waiter is None else WaiterId(waiter)
    return Wanted(var(name, session), criteria, who, stream)


def make_submission(
    *nodes: NodeSpec,
    session: SessionId = SESSION,
    is_new: bool = True,
    wanted: Iterable[Wanted] = (),
    variables: dict[str, str | None] | None = None,
    tenant: str = "default",
    idempotency_key: str | None = None,
    digest: str = "",
    close: bool = False,
    quiet: bool = False,
) -> GraphSubmitted:
    """Return a submit; ``variables`` are the external ones with their values."""
    return GraphSubmitted(
        session,
        is_new,
        tenant=tenant,
        idempotency_key=idempotency_key,
        digest=digest,
        variables=tuple(VariableSpec(name, value) for name, value in (variables or {}).items()),
        nodes=nodes,
        wanted=tuple(wanted),
        close=close,
        quiet=quiet,
    )


def make_engine(
    name: str = "e0",
    *,
    models: tuple[str, ...] = ("m",),
    capacity_tokens: int = 10_000,
    latency_capacity_tokens: int = 1_000,
    max_requests: int = 16,
    keeps_prefixes: bool = False,
    takes_updates: bool = False,
    splices: bool = False,
) -> EngineInfo:
    """Return what an engine says of itself."""
    return EngineInfo(
        EngineId(name),
        models,
        4096,
        capacity_tokens,
        latency_capacity_tokens,
        max_requests,
        keeps_prefixes,
        takes_updates,
        splices,
    )


def make_engine_state(
    name: str = "e0",
    *,
    models: tuple[str, ...] = ("m",),
    capacity_tokens: int = 10_000,
    latency_capacity_tokens: int = 1_000,
    max_requests: int = 16,
) -> EngineState:
    """Return the account of an idle engine."""
    return EngineState(
        make_engine(
            name,
            models=models,
            capacity_tokens=capacity_tokens,
            latency_capacity_tokens=latency_capacity_tokens,
            max_requests=max_requests,
        )
    )


def make_graph(
    *nodes: NodeSpec,
    variables: dict[str, str | None] | None = None,
    session: SessionId = SESSION,
) -> SessionGraph:
    """Return a graph that holds the nodes."""
    graph = SessionGraph(session)
    extend_graph(graph, *nodes, variables=variables)
    return graph


def extend_graph(
    graph: SessionGraph, *nodes: NodeSpec, variables: dict[str, str | None] | None = None
) -> None:
    """Add nodes to a graph as a further submit would."""
    submission = make_submission(*nodes, session=graph.session, variables=variables)
    graph.apply(graph.plan(submission, max_nodes=100_000), now_s=0.0)


def make_objective(
    objective_class: ObjectiveClass, group: str | None = None, deadline_s: float | None = None
) -> Objective:
    """Return an objective; ``group`` is the bare name of the task group."""
    return Objective(objective_class, None if group is None else TaskGroupId(group), deadline_s)


def make_ages(
    max_wait_s: float = 30.0, max_run_s: float = 600.0, *, by_tenant: bool = True
) -> AgeLimits:
    """Return from when on queued requests are old."""
    return AgeLimits(max_wait_s, max_run_s, by_tenant=by_tenant)


def make_chain(*boundaries: tuple[str, int]) -> PrefixChain:
    """Return boundaries given as (hash, tokens), shortest first."""
    return tuple(PrefixBoundary(key.encode(), tokens) for key, tokens in boundaries)


def make_request(
    name: str = "r",
    *,
    need_tokens: int = 100,
    max_tokens: int = 10,
    objective: Objective = UNANNOTATED,
    prefixes: PrefixChain = (),
    model: str | None = None,
    order: int = 0,
    session_order: int = 0,
    depth: int = 0,
    remaining: int = 0,
    ready_s: float = 0.0,
    avoided: Iterable[str] = (),
    tenant: str = "default",
) -> Request:
    """Return a ready request that needs ``need_tokens`` in all, prompt and output together."""
    return Request(
        id=NodeId(name),
        inputs=(),
        output=VariableId(name),
        session=SESSION,
        tenant=tenant,
        model=model,
        segments=(),
        sampling=Sampling(max_tokens=max_tokens),
        order=order,
        session_order=session_order,
        depth=depth,
        remaining=remaining,
        ready_s=ready_s,
        objective=objective,
        prefixes=prefixes,
        prompt_tokens=need_tokens - max_tokens,
        avoided=[EngineId(engine) for engine in avoided],
    )


def names(identifiers: Iterable[VariableId | NodeId]) -> list[str]:
    """Return the clients' names of ids, without the number of the step."""
    return [name_of(identifier).partition("#")[0] for identifier in identifiers]
