"""The same programs on the native front end: one submit to Parrot."""

from __future__ import annotations

import time
from collections.abc import Mapping

import parrot_integrations as P
from parrot_backend.demo.programs import DemoProgram
from parrot_backend.demo.records import CallRecord, Mode, Phase, PhaseKind, RunRecord
from parrot_backend.demo.transport import DelayingTransport
from parrot_backend.protocol import NodeView, SessionView


class ParrotCaller:
    """Runs programs in one submit.

    Args:
        base_url: Address of Parrot's server.
        transport: The network between; closed with this.
    """

    def __init__(self, base_url: str, transport: DelayingTransport) -> None:
        self._transport = transport
        self._client = P.AsyncParrotClient(base_url, transport=transport)
        self._observer = P.AsyncParrotClient(base_url)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
        await self._observer.aclose()

    async def run(self, program: DemoProgram) -> RunRecord:
        """Run a program and return its record.

        Raises:
            ParrotError: A call failed.
        """
        one_way_s = self._transport.one_way_s
        trips_before = self._transport.round_trips
        start_s = time.perf_counter()
        # The session is looked at afterwards, without delay, and closed by hand.
        async with P.program(client=self._client, app=program.title, keep=True) as scope:
            text = await program.one_submit()
            e2e_s = time.perf_counter() - start_s
            round_trips = self._transport.round_trips - trips_before
            assert scope.session_id is not None, "something was submitted"
            view = await self._observer.get_session(scope.session_id)
            timeline = await self._observer.get_timeline(scope.session_id)
        await self._observer.close_session(view.id)
        return RunRecord(
            mode=Mode.ONE_SUBMIT,
            e2e_s=e2e_s,
            round_trips=round_trips,
            calls=session_to_calls(view, program.call_names, one_way_s),
            text=text,
            network=(
                Phase(PhaseKind.REQUEST_TRAVELS, 0.0, one_way_s),
                Phase(PhaseKind.REPLY_TRAVELS, e2e_s - one_way_s, e2e_s),
            ),
            timeline=timeline,
        )


def session_to_calls(
    view: SessionView, call_names: tuple[str, ...], opened_s: float
) -> tuple[CallRecord, ...]:
    """Return a finished session's calls.

    Args:
        view: The session.
        call_names: Names for its calls, in the order of the program.
        opened_s: When the session was opened, on the client's clock.

    Raises:
        ValueError: The session has other calls, or one that did not finish.
    """
    producers = {node.output: node for node in view.nodes}
    requests = [node for node in view.nodes if node.kind == "request"]
    names = dict(zip((node.output for node in requests), call_names, strict=True))
    return tuple(
        _call(node, names[node.output], _needs(node, producers, names), opened_s)
        for node in requests
    )


def _needs(
    node: NodeView, producers: Mapping[str, NodeView], names: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the names of the calls a node reads, seen through transforms."""
    found: list[str] = []
    for used in node.inputs:
        producer = producers.get(used)
        if producer is None:
            continue
        if producer.kind == "request":
            found.append(names[used])
        else:
            found += _needs(producer, producers, names)
    return tuple(dict.fromkeys(found))


def _call(node: NodeView, name: str, needs: tuple[str, ...], opened_s: float) -> CallRecord:
    times_s = (node.ready_s, node.placed_s, node.first_token_s, node.finished_s)
    ready_s, placed_s, first_s, finished_s = (opened_s + _known(value, name) for value in times_s)
    usage = node.usage
    if usage is None:
        raise ValueError(f"the server tells no usage of call {name!r}")
    return CallRecord(
        name=name,
        phases=(
            Phase(PhaseKind.QUEUE, ready_s, placed_s),
            Phase(PhaseKind.PREFILL, placed_s, first_s),
            Phase(PhaseKind.DECODE, first_s, finished_s),
        ),
        needs=needs,
        engine_s=_known(node.engine_s, name),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _known(value: float | None, name: str) -> float:
    if value is None:
        raise ValueError(f"the server does not tell all times of call {name!r}")
    return value
