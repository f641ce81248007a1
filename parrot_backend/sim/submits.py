"""Programs as what a client submits: one graph of all calls, or one call with its texts. Pure.

Two things that programs can say have no word of their own in a graph. A call that the client only
sends after it has computed for a while takes the last piece of its prompt from a variable that the
client sets. A call that comes after others without reading them takes it from a transform that
waits for them. Either way the text, and so the prefix hash, is what it would be without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.core.events import (
    CallSpec,
    GraphSubmitted,
    NodeSpec,
    TransformSpec,
    VariableSpec,
    Wanted,
)
from parrot_backend.core.ids import VariableId, WaiterId, variable_id
from parrot_backend.core.prompt import Input, Output, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.transforms import RegexGroup
from parrot_backend.sim.jobs import Job
from parrot_backend.sim.plan import made_tokens
from parrot_backend.sim.program import Constant, Piece, ProgramCall
from parrot_backend.sim.texts import ConstantTexts, output_text

_UNSTATED = Criteria(CriteriaKind.UNSTATED)

#: Makes any text empty.
_NOTHING_OF_IT = (RegexGroup(""),)


def call_submit(
    job: Job, position: int, waiter: WaiterId, texts: ConstantTexts, now_s: float
) -> GraphSubmitted:
    """Return the submit of one call, whose prompt is all text."""
    call = job.program.calls[position]
    output = job.variable(position)
    segments = tuple(_text(job, piece, texts) for piece in call.prompt)
    spec = _call_spec(job.name(position), call, (*segments, Output(output, _sampling(call))))
    criteria = dict(job.program.wanted).get(call.name, _UNSTATED)
    return GraphSubmitted(
        session=job.session.id,
        is_new=not job.session.is_open,
        tenant=job.program.tenant,
        app=job.program.app,
        nodes=(spec,),
        wanted=(Wanted(output, _on_clock(criteria, now_s), waiter),),
        quiet=True,
        is_run=job.session.is_run,
        ttl_s=float("inf"),  # its client ends it
    )


def graph_submit(
    job: Job, waiters: Mapping[int, WaiterId], texts: ConstantTexts, now_s: float
) -> GraphSubmitted:
    """Return the submit of a whole program.

    Args:
        job: Whose program it is.
        waiters: By position, for the wanted calls and those that the client needs to go on.
        texts: Makes the constants.
        now_s: The time on the server.
    """
    variables: list[VariableSpec] = []
    nodes: list[NodeSpec] = []
    read = set[VariableId]()
    for position, call in enumerate(job.program.calls):
        segments: list[Text | Input] = [_segment(job, piece, texts) for piece in call.prompt]
        if call.think_s:
            name = sent_name(job, position)
            variables.append(VariableSpec(name))
            segments[-1] = Input(variable_id(job.session.id, name))
        elif call.after:
            transform = _after(job, position, segments[-1])
            nodes.append(transform)
            segments[-1] = Input(transform.output)
        read.update(segment.variable for segment in segments if isinstance(segment, Input))
        output = Output(job.variable(position), _sampling(call))
        nodes.append(_call_spec(job.name(position), call, (*segments, output)))
    return GraphSubmitted(
        session=job.session.id,
        is_new=True,
        tenant=job.program.tenant,
        app=job.program.app,
        variables=tuple(variables),
        nodes=tuple(nodes),
        wanted=_wanted(job, waiters, read, now_s),
        close=not variables,
        quiet=True,
    )


def sent_name(job: Job, position: int) -> str:
    """Return the name of the variable that holds what the client sends late of a call."""
    return f"{job.name(position)}/sent"


def sent_text(job: Job, position: int, texts: ConstantTexts) -> str:
    """Return what the client sends late of a call."""
    return _text(job, job.program.calls[position].prompt[-1], texts).text


def _wanted(
    job: Job, waiters: Mapping[int, WaiterId], read: set[VariableId], now_s: float
) -> tuple[Wanted, ...]:
    given = dict(job.program.wanted)
    wanted: list[Wanted] = []
    for position, waiter in waiters.items():
        output = job.variable(position)
        criteria = given.get(job.program.calls[position].name)
        if criteria is None and output not in read:
            # Nothing in the graph says what it leads to; the client waits for it all the same.
            criteria = job.program.wanted[0][1]
        wanted.append(
            Wanted(output, None if criteria is None else _on_clock(criteria, now_s), waiter)
        )
    return tuple(wanted)


def _on_clock(criteria: Criteria, now_s: float) -> Criteria:
    """Return criteria with the deadline on the server's clock, as its wire has it."""
    if criteria.deadline_s is None:
        return criteria
    return replace(criteria, deadline_s=now_s + criteria.deadline_s)


def _after(job: Job, position: int, last: Text | Input) -> TransformSpec:
    """Return a transform that makes the last piece of a prompt when other calls have ended."""
    call, place = job.program.calls[position], job.plan.position
    name = f"{job.name(position)}/after"
    others = [Input(job.variable(place[other]), _NOTHING_OF_IT) for other in call.after]
    return TransformSpec(name, (last, *others), (), variable_id(job.session.id, name))


def _segment(job: Job, piece: Piece, texts: ConstantTexts) -> Text | Input:
    if isinstance(piece, Constant):
        return texts.segment(piece.key, piece.tokens)
    return Input(job.variable(job.plan.position[piece.call]))


def _text(job: Job, piece: Piece, texts: ConstantTexts) -> Text:
    if isinstance(piece, Constant):
        return texts.segment(piece.key, piece.tokens)
    maker = job.program.calls[job.plan.position[piece.call]]
    return Text(output_text(job.number, maker.name, made_tokens(maker)))


def _call_spec(
    name: str, call: ProgramCall, segments: tuple[Text | Input | Output, ...]
) -> CallSpec:
    return CallSpec(name, segments, stage=call.stage)


def _sampling(call: ProgramCall) -> Sampling:
    if call.max_tokens is None:
        return _sampling_of(call.output_tokens, is_exact=True)
    return _sampling_of(call.max_tokens, is_exact=False)


@lru_cache(maxsize=4096)
def _sampling_of(max_tokens: int, *, is_exact: bool) -> Sampling:
    return Sampling(max_tokens=max_tokens, ignore_eos=is_exact)
