"""Submits of independent calls: how they are put together, and what becomes of each call.

What to send next is decided by a generator that does no I/O; ``run`` and ``arun`` carry it out,
blocking and awaiting.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from parrot_backend.protocol import (
    Scalar,
    SubmitReply,
    SubmitRequest,
    VariableView,
    WantedOutput,
    WireCriteria,
)
from parrot_integrations._replies import is_settled
from parrot_integrations._wire import to_json
from parrot_integrations.async_client import AsyncParrotClient
from parrot_integrations.client import ParrotClient
from parrot_integrations.criteria import UNSTATED
from parrot_integrations.deadline import Deadline
from parrot_integrations.errors import (
    ParrotError,
    RequestRejected,
    ValueCancelled,
    WaitTimeout,
    value_error,
)
from parrot_integrations.planning.calls import ModelCall

#: What became of a call.
Outcome = VariableView | ParrotError
#: Yields the calls of the next submit, is sent what became of them, returns the whole.
Exchanges = Generator[Sequence[ModelCall], list[Outcome] | RequestRejected, list[Outcome]]

#: Bounds of one submit, well below what the server takes: 10,000 nodes and a body of 8 MiB.
MAX_CALLS = 1_000
MAX_BYTES = 4 * 2**20
#: How many further submits may look for the call that got its whole submit refused.
_MAX_SEARCHES = 64
_OUTPUT = "reply"


@dataclass(frozen=True, slots=True)
class Terms:
    """How calls are sent, apart from what they generate.

    Attributes:
        app: Name of the application.
        metadata: Labels of the session.
        criteria: How urgent the values are.
        timeout_s: Longest wait; what is not there by then is given up.
    """

    app: str = ""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    criteria: WireCriteria = UNSTATED
    timeout_s: float | None = None


def to_request(calls: Sequence[ModelCall], terms: Terms) -> SubmitRequest:
    """Return the submit of some calls; the output of call i is ``reply-i``."""
    return SubmitRequest(
        app=terms.app,
        metadata=dict(terms.metadata),
        nodes=tuple(call.to_node(f"call-{i}", _name(i)) for i, call in enumerate(calls)),
        outputs=tuple(
            WantedOutput(variable=_name(i), criteria=terms.criteria) for i in range(len(calls))
        ),
        timeout_s=terms.timeout_s,
        close=True,
        on_disconnect="cancel",
    )


def chunks(calls: Sequence[ModelCall]) -> Iterator[list[ModelCall]]:
    """Split calls, in order, into submits that the server takes."""
    chunk: list[ModelCall] = []
    chunk_bytes = 0
    for call in calls:
        call_bytes = _num_bytes(call)
        if chunk and (len(chunk) == MAX_CALLS or chunk_bytes + call_bytes > MAX_BYTES):
            yield chunk
            chunk, chunk_bytes = [], 0
        chunk.append(call)
        chunk_bytes += call_bytes
    if chunk:
        yield chunk


def exchanges(calls: Sequence[ModelCall]) -> Exchanges:
    """Decide what to send until it is known what became of every call.

    A refused submit is sent again in halves, so that one bad call does not take others with it. A
    call that was cancelled is sent once more: when a connection breaks the server gives up its
    work, and the client's own second try then finds that.
    """
    found: dict[int, Outcome] = {}
    queue: list[tuple[int, ...]] = [tuple(range(len(calls)))]
    again: set[int] = set()
    num_searches = 0
    while queue:
        part = queue.pop()
        answer = yield [calls[i] for i in part]
        if isinstance(answer, RequestRejected):
            if len(part) > 1 and num_searches < _MAX_SEARCHES:
                num_searches += 2
                half = len(part) // 2
                queue += [part[half:], part[:half]]
            else:
                found.update(dict.fromkeys(part, answer))
            continue
        found.update(zip(part, answer, strict=True))
        lost = [i for i in part if isinstance(found[i], ValueCancelled) and i not in again]
        again.update(lost)
        if lost:
            queue.append(tuple(lost))
    return [found[i] for i in range(len(calls))]


def succeeded(outcomes: Sequence[Outcome]) -> list[VariableView]:
    """Return the variables of calls that all have succeeded.

    Raises:
        ParrotError: One has failed; that of the first one.
    """
    views = []
    for outcome in outcomes:
        if isinstance(outcome, ParrotError):
            raise outcome
        views.append(outcome)
    return views


def run(steps: Exchanges, client: ParrotClient, terms: Terms) -> list[Outcome]:
    """Carry out exchanges, blocking."""
    try:
        calls = next(steps)
        while True:
            calls = steps.send(_submit(client, calls, terms))
    except StopIteration as stop:
        outcomes: list[Outcome] = stop.value
        return outcomes


async def arun(steps: Exchanges, client: AsyncParrotClient, terms: Terms) -> list[Outcome]:
    """Carry out exchanges."""
    try:
        calls = next(steps)
        while True:
            calls = steps.send(await _asubmit(client, calls, terms))
    except StopIteration as stop:
        outcomes: list[Outcome] = stop.value
        return outcomes


def give_up(client: ParrotClient, session_id: str | None) -> None:
    """Cancel work that nobody waits for any more and that the server still does."""
    if session_id is not None:
        with suppress(ParrotError):
            client.cancel(session_id)


async def agive_up(client: AsyncParrotClient, session_id: str | None) -> None:
    """Cancel work that nobody waits for any more and that the server still does."""
    if session_id is not None:
        with suppress(ParrotError):
            await client.cancel(session_id)


def timed_out(terms: Terms) -> WaitTimeout:
    """Return the error of a call that took too long."""
    patience = "the server's patience" if terms.timeout_s is None else f"{terms.timeout_s:g} s"
    return WaitTimeout("wait_timeout", f"no reply within {patience}; the call was given up")


def _submit(
    client: ParrotClient, calls: Sequence[ModelCall], terms: Terms
) -> list[Outcome] | RequestRejected:
    deadline = Deadline(terms.timeout_s)
    try:
        reply = client.submit(to_request(calls, terms))
    except RequestRejected as exc:
        return exc
    except ParrotError as exc:
        return [exc] * len(calls)
    views = list(_in_order(reply, len(calls)))
    for i, view in enumerate(views):
        # The server waits only so long in one request.
        if not is_settled(view) and deadline.remaining_s() != 0.0:
            try:
                views[i] = client.get_variable(view.id, timeout_s=deadline.remaining_s())
            except ParrotError as exc:
                if not isinstance(exc, WaitTimeout):
                    return [exc] * len(calls)
    if not all(map(is_settled, views)):
        give_up(client, reply.session_id)
    return [_outcome(view, terms) for view in views]


async def _asubmit(
    client: AsyncParrotClient, calls: Sequence[ModelCall], terms: Terms
) -> list[Outcome] | RequestRejected:
    deadline = Deadline(terms.timeout_s)
    try:
        reply = await client.submit(to_request(calls, terms))
    except RequestRejected as exc:
        return exc
    except ParrotError as exc:
        return [exc] * len(calls)
    views = list(_in_order(reply, len(calls)))
    for i, view in enumerate(views):
        # The server waits only so long in one request.
        if not is_settled(view) and deadline.remaining_s() != 0.0:
            try:
                views[i] = await client.get_variable(view.id, timeout_s=deadline.remaining_s())
            except ParrotError as exc:
                if not isinstance(exc, WaitTimeout):
                    return [exc] * len(calls)
    if not all(map(is_settled, views)):
        await agive_up(client, reply.session_id)
    return [_outcome(view, terms) for view in views]


def _num_bytes(call: ModelCall) -> int:
    try:
        return len(to_json(call.to_node("call", _OUTPUT)))
    except RequestRejected:
        # It will not be sent.
        return 0


def _in_order(reply: SubmitReply, num_calls: int) -> list[VariableView]:
    return [reply.variables[_name(i)] for i in range(num_calls)]


def _outcome(view: VariableView, terms: Terms) -> Outcome:
    if view.state == "ready":
        return view
    return value_error(view) if is_settled(view) else timed_out(terms)


def _name(index: int) -> str:
    return f"{_OUTPUT}-{index}"
