"""Runs a program in both modes by turns, each time on an empty prefix cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from parrot_backend.demo.call_by_call import OpenAICaller
from parrot_backend.demo.host_process import Host
from parrot_backend.demo.one_submit import ParrotCaller
from parrot_backend.demo.programs import DemoProgram
from parrot_backend.demo.records import RunRecord
from parrot_backend.demo.transport import DelayingTransport


@dataclass(frozen=True, slots=True)
class Pair:
    """One repetition: a run call by call, and right after it one in one submit."""

    call_by_call: RunRecord
    one_submit: RunRecord


class Contest:
    """Both ways to one engine; made by :func:`contest`."""

    def __init__(self, host: Host, ordinary: OpenAICaller, parrot: ParrotCaller) -> None:
        self._host = host
        self._ordinary = ordinary
        self._parrot = parrot

    async def run_pair(
        self, program: DemoProgram, on_run: Callable[[RunRecord], None] | None = None
    ) -> Pair:
        """Run a program once in each mode; ``on_run`` hears of each run when it is over."""
        await self._host.reset_prefix_cache()
        call_by_call = await self._ordinary.run(program)
        if on_run is not None:
            on_run(call_by_call)
        await self._host.reset_prefix_cache()
        one_submit = await self._parrot.run(program)
        if on_run is not None:
            on_run(one_submit)
        return Pair(call_by_call, one_submit)


@asynccontextmanager
async def contest(
    host: Host, round_trip_s: float, max_concurrent: int | None = None
) -> AsyncIterator[Contest]:
    """Open connections with a round trip of their own to both servers of a host."""
    info = host.info
    ordinary = OpenAICaller(
        info.vllm_url, info.model, DelayingTransport(round_trip_s), max_concurrent
    )
    parrot = ParrotCaller(info.parrot_url, DelayingTransport(round_trip_s))
    async with aclosing(ordinary), aclosing(parrot):
        yield Contest(host, ordinary, parrot)
