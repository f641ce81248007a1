"""The client's side of the plug-in: hints for requests, orders to the core, reports from it.

Hints travel with a request, as plain data. Orders (change hints, keep or release prefixes) go in
batches, in the order in which they were given. Reports come one after the other, each asked for
with the number of the one before, so that a gap cannot go unnoticed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from typing import Any, NamedTuple

from parrot_backend.core.criteria import Objective
from parrot_backend.core.events import EngineReported
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.prompt import PartKind
from parrot_backend.core.step_time import StepTimeModel
from parrot_backend.engines.base import AttentionLoad, EngineLoad, EngineRequest
from parrot_backend.vllm_plugin.hints import MAX_PREFIXES

#: Calls the plug-in: name of the call, and its arguments.
Call = Callable[[str, list[Any]], Awaitable[Any]]


def hints_of(request: EngineRequest, ends: Sequence[int], settled: Sequence[int]) -> dict[str, Any]:
    """Return what the plug-in is to know of a request.

    Args:
        request: The request.
        ends: After how many tokens each part of its prompt ends.
        settled: After how many tokens each of its beginnings ends; 0 where that is not known.
    """
    hints = changing_hints(request.objective, request.remaining)
    if request.fill_parts is not None:
        hints["class"] = "fill"
    marks = _rising(_marks(request, ends, settled))
    of_parts = [mark for mark in marks if not mark.is_inside]
    if len(of_parts) > 1:
        hints["prefix_group"] = of_parts[0].key
    prefixes = [[mark.key, mark.end] for mark in _bounded(marks, len(of_parts))]
    if request.after is not None:
        hints["after"], hints["gap_at"] = request.after, ends[request.gap]
    known = {key for key, _ in prefixes}
    retained = [key.hex() for key in request.retain]
    return {
        **hints,
        "name": request.attempt,
        "tenant": request.tenant,
        "prefixes": prefixes,
        "retain": [key for key in retained if key in known],
    }


class _Mark(NamedTuple):
    """A boundary or a beginning, and after how many tokens it ends; no key if nobody named it."""

    key: str | None
    end: int
    is_inside: bool


def _marks(request: EngineRequest, ends: Sequence[int], settled: Sequence[int]) -> list[_Mark]:
    """Return the ends of all texts, and the known ends inside of them, in the order of texts."""
    inside: dict[int, list[_Mark]] = {}
    for beginning, end in zip(request.beginnings, settled, strict=True):
        if end:
            mark = _Mark(beginning.boundary.hash.hex(), end, is_inside=True)
            inside.setdefault(beginning.part, []).append(mark)
    # A fill has boundaries for its known parts only.
    keys = (boundary.hash.hex() for boundary in request.prefixes)
    marks: list[_Mark] = []
    for position, (part, end) in enumerate(zip(request.parts, ends, strict=True)):
        if part.kind is not PartKind.ROLE:
            marks += inside.get(position, [])
            marks.append(_Mark(next(keys, None), end, is_inside=False))
    return marks


def _rising(marks: Sequence[_Mark]) -> list[_Mark]:
    """Return what has a name, and before which there is all that its name stands for and no more.

    A chat template may write a text behind one that follows it. What ends with either then has
    other text before it than its name says.
    """
    ends = [mark.end for mark in marks]
    most_before = accumulate(ends, max)
    least_after = list(accumulate(reversed(ends), min))[::-1]
    return [
        mark
        for mark, most, least in zip(marks, most_before, least_after, strict=True)
        if mark.key is not None and mark.end and most == mark.end == least
    ]


def _bounded(marks: Sequence[_Mark], num_of_parts: int) -> list[_Mark]:
    """Return as many as the plug-in takes: shorter beginnings give way, then shorter boundaries."""
    num_missing = max(0, len(marks) - MAX_PREFIXES)
    num_given_up = min(num_missing, len(marks) - num_of_parts)
    given_up = list(islice((mark for mark in marks if mark.is_inside), num_given_up))
    return [mark for mark in marks if mark not in given_up][-MAX_PREFIXES:]


def changing_hints(objective: Objective, remaining: int) -> dict[str, Any]:
    """Return the part of the hints that may change while a request waits or runs."""
    deadline_s = objective.deadline_s
    return {
        "class": objective.objective_class.name.lower(),
        "slack_s": None if deadline_s is None else deadline_s - time.monotonic(),
        "tpot_s": objective.tpot_s,
        "group": objective.group,
        "path_length": remaining,
    }


class PluginSide:
    """Sends orders and reads reports of one engine.

    Args:
        engine: The engine's id.
        call: Calls its plug-in.
        tell: Takes what the engine has to say.
    """

    def __init__(
        self, engine: EngineId, call: Call, tell: Callable[[EngineReported], None]
    ) -> None:
        self._engine = engine
        self._call = call
        self._tell = tell
        self._orders: list[list[Any]] = []
        self._has_orders = asyncio.Event()
        self._figures: dict[str, Any] = {}

    def update(self, attempt: AttemptId, objective: Objective, remaining: int) -> None:
        """Order other hints for an attempt."""
        self._order("hints", attempt, changing_hints(objective, remaining))

    def retain(self, key: bytes, attempt: AttemptId | None) -> None:
        """Order to keep a prefix."""
        self._order("retain", key.hex(), attempt)

    def release(self, keys: Sequence[bytes]) -> None:
        """Order to keep prefixes no longer."""
        for key in keys:
            self._order("release", key.hex())

    def add_figures(self, load: EngineLoad) -> EngineLoad:
        """Return a load with what the plug-in counts."""
        if not self._figures:
            return load
        attention = self._figures["attention"]
        return replace(
            load,
            attention=None if attention is None else AttentionLoad(**attention),
            pinned_tokens=self._figures["pinned_tokens"],
            pinned_hit_tokens=self._figures["pinned_hit_tokens"],
            lost_pins=self._figures["lost_pins"],
            preempted=self._figures["preempted"],
        )

    def _order(self, *order: Any) -> None:
        self._orders.append(list(order))
        self._has_orders.set()

    async def send_orders(self) -> None:
        """Send orders as they come, for ever; raises what a call raises."""
        while True:
            await self._has_orders.wait()
            self._has_orders.clear()
            orders, self._orders = self._orders, []
            await self._call("apply", [orders])

    async def read_reports(self) -> None:
        """Pass on reports as they come, for ever; raises what a call raises."""
        number = -1
        while True:
            report = await self._call("report", [number])
            if report:
                number = report["number"]
                self._figures = report
                self._tell(_event(self._engine, report))


def _event(engine: EngineId, report: dict[str, Any]) -> EngineReported:
    step_time = report["step_time"]
    return EngineReported(
        engine=engine,
        held=tuple(PrefixBoundary(bytes.fromhex(key), tokens) for key, tokens in report["held"]),
        lost=tuple(map(bytes.fromhex, report["lost"])),
        is_snapshot=report["is_snapshot"],
        step_time=None if step_time is None else StepTimeModel(**step_time),
    )
