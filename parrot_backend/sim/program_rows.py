"""Our own form of traces: a job as one JSON object.

    {"parrot_job": 1, "time_s": 0.5, "user": "u", "app": "a", "tenant": "t",
     "calls": [{"name": "c", "prompt": [{"text": "key", "tokens": 9}, {"output": "b"}],
                "output_tokens": 7, "max_tokens": 9, "stage": "s", "think_s": 1.0, "after": ["b"]}],
     "wanted": [{"call": "c", "kind": "latency", "tpot_s": 0.05}]}

What has a default may be absent. The number after ``parrot_job`` is the version of the form.
"""

from __future__ import annotations

from collections.abc import Mapping

from parrot_backend.core.criteria import Criteria, CriteriaKind
from parrot_backend.sim.json_lines import (
    BadRowError,
    Row,
    array,
    number,
    shown,
    string,
    whole_number,
)
from parrot_backend.sim.plan import check_program
from parrot_backend.sim.program import (
    DEFAULT_TENANT,
    Arrival,
    Constant,
    Output,
    Piece,
    Program,
    ProgramCall,
)
from parrot_backend.sim.workloads.checks import MAX_TOKENS, WorkloadError

_VERSION = 1
_TARGETS = ("deadline_s", "ttft_s", "tpot_s")
_FIELDS = {
    "job": {"parrot_job", "time_s", "user", "app", "tenant", "calls", "wanted"},
    "call": {
        *("name", "prompt", "output_tokens", "max_tokens", "stage", "think_s", "after"),
    },
    "wanted": {"call", "kind", *_TARGETS},
}


def row_of(arrival: Arrival) -> Row:
    """Return a job as a JSON object."""
    program = arrival.program
    row = {"parrot_job": _VERSION, "time_s": arrival.time_s, "app": program.app}
    row |= {"user": arrival.user} if arrival.user else {}
    row |= {"tenant": program.tenant} if program.tenant != DEFAULT_TENANT else {}
    calls = [_call_row(call) for call in program.calls]
    return {**row, "calls": calls, "wanted": [_wanted_row(*one) for one in program.wanted]}


def take_arrival(row: Row) -> Arrival:
    """Return the job that a JSON object means.

    Raises:
        BadRowError: It means none.
    """
    _check_fields(row, "job")
    if row.get("parrot_job") != _VERSION:
        raise BadRowError(f"parrot_job must be {_VERSION}, not {shown(row.get('parrot_job'))}")
    program = Program(
        string(row, "app"),
        tuple(_call(_mapping(one, "call")) for one in array(row, "calls")),
        tuple(_wanted(_mapping(one, "wanted")) for one in array(row, "wanted")),
        string(row, "tenant", DEFAULT_TENANT),
    )
    try:
        check_program(program)
    except WorkloadError as error:
        raise BadRowError(str(error)) from None
    return Arrival(number(row, "time_s"), program, string(row, "user", ""))


def _call_row(call: ProgramCall) -> Row:
    row: dict[str, object] = {"name": call.name, "prompt": [_piece_row(p) for p in call.prompt]}
    row["output_tokens"] = call.output_tokens
    if call.max_tokens is not None:
        row["max_tokens"] = call.max_tokens
    if call.stage is not None:
        row["stage"] = call.stage
    if call.think_s:
        row["think_s"] = call.think_s
    if call.after:
        row["after"] = call.after
    return row


def _piece_row(piece: Piece) -> Row:
    if isinstance(piece, Output):
        return {"output": piece.call}
    return {"text": piece.key, "tokens": piece.tokens}


def _wanted_row(call: str, criteria: Criteria) -> Row:
    targets = {name: getattr(criteria, name) for name in _TARGETS}
    told = {name: value for name, value in targets.items() if value is not None}
    return {"call": call, "kind": criteria.kind.value, **told}


def _call(row: Row) -> ProgramCall:
    _check_fields(row, "call")
    is_bounded = row.get("max_tokens") is not None
    return ProgramCall(
        string(row, "name"),
        tuple(_piece(_mapping(one, "prompt")) for one in array(row, "prompt")),
        whole_number(row, "output_tokens", 1, MAX_TOKENS),
        whole_number(row, "max_tokens", 1, MAX_TOKENS) if is_bounded else None,
        None if row.get("stage") is None else string(row, "stage"),
        number(row, "think_s", 0.0),
        tuple(_name(one) for one in array(row, "after")),
    )


def _piece(row: Row) -> Piece:
    if row.keys() == {"output"}:
        return Output(string(row, "output"))
    if row.keys() == {"text", "tokens"}:
        return Constant(string(row, "text"), whole_number(row, "tokens", 1, MAX_TOKENS))
    raise BadRowError(f"a piece has either output, or text and tokens, not {shown(dict(row))}")


def _wanted(row: Row) -> tuple[str, Criteria]:
    _check_fields(row, "wanted")
    kind = string(row, "kind", CriteriaKind.UNSTATED.value)
    if kind not in {known.value for known in CriteriaKind}:
        raise BadRowError(f"there is no criterion {shown(kind)}")
    targets = {name: number(row, name) for name in _TARGETS if row.get(name) is not None}
    return string(row, "call"), Criteria(CriteriaKind(kind), **targets)


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise BadRowError(f"after must have names of calls, not {shown(value)}")
    return value


def _mapping(value: object, name: str) -> Row:
    if not isinstance(value, Mapping):
        raise BadRowError(f"{name} must hold JSON objects, not {shown(value)}")
    return value


def _check_fields(row: Row, of: str) -> None:
    # The form is our own: what is not known is a slip, and reading on would lose it.
    unknown = sorted(row.keys() - _FIELDS[of])
    if unknown:
        raise BadRowError(f"a {of} has no field {unknown[0]!r}")
