"""The mirror: what the client knows of its plan's graph while the program is replayed. Pure.

It follows the server: as values become known, texts and calls become concrete and bodies get their
instances, under the server's names. A call of the replayed program is found by its exact texts.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from parrot_backend import closed_set
from parrot_backend.protocol import MapNode
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.holes import fill_holes
from parrot_integrations.planning.instances import Instance, instance_name, instance_of
from parrot_integrations.planning.rules import condition_holds, rendered, transformed
from parrot_integrations.planning.steps import (
    PlannedBranch,
    PlannedCall,
    PlannedLoop,
    PlannedMap,
    PlannedText,
    Step,
)
from parrot_integrations.planning.waiting import WaitingCalls

#: Longest list that the server maps over, unless a node says otherwise; those of plans do not.
_MAX_ITEMS: int = MapNode.model_fields["max_items"].default


@dataclass(frozen=True, slots=True)
class _Gathering:
    """The end of a map or a branch: its output follows from the results of its instances."""

    inputs: tuple[str, ...]
    output: str
    is_list: bool


@dataclass(frozen=True, slots=True)
class _RoundEnd:
    """The end of a round of a loop."""

    loop: PlannedLoop
    index: int
    instance: Instance
    inputs: tuple[str, ...]


@dataclass(eq=False, slots=True)
class _Awaited:
    """Something that goes on when all of its inputs are known."""

    step: Step | _Gathering | _RoundEnd
    missing: set[str]


@dataclass(frozen=True, slots=True)
class Match:
    """A planned call that is the one looked for.

    Attributes:
        call: The call.
        learnt: Values of late-bound variables that follow from it.
    """

    call: PlannedCall
    learnt: Mapping[str, str]


@dataclass(slots=True)
class Mirror:
    """What is known of a plan's graph.

    Attributes:
        values: Variables whose values are known.
        externals: Late-bound variables without a value.
        num_calls: Calls that exist by now.
    """

    values: dict[str, str]
    externals: set[str]
    num_calls: int = 0
    _readers: dict[str, list[_Awaited]] = field(default_factory=lambda: defaultdict(list))
    _ready: dict[tuple[object, ...], deque[PlannedCall]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    _waiting: WaitingCalls = field(default_factory=WaitingCalls)
    _taken: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls, steps: Iterable[Step], constants: Mapping[str, str], externals: Iterable[str]
    ) -> Mirror:
        """Return the mirror of a plan that nothing has happened to."""
        mirror = cls(dict(constants), set(externals))
        for name, value in mirror._add(steps):
            mirror.learn(name, value)
        return mirror

    @property
    def has_ready_calls(self) -> bool:
        """Whether the texts of any call are known."""
        return any(self._ready.values())

    def find(self, call: ModelCall) -> Match | None:
        """Return the planned call that is exactly this one, and forget it; None if there is none.

        The first is taken of several: they are alike. A planned call that waits for the client
        alone is found if the text has what it needs in the right places.
        """
        ready = self._ready.get((call.frame, call.texts))
        if ready:
            return Match(ready.popleft(), {})
        for candidate in self._waiting.candidates(call):
            learnt = fill_holes(candidate.contents, call.texts, self.values)
            if learnt is not None:
                self._waiting.remove(candidate)
                self._taken.add(candidate.output)
                return Match(candidate, learnt)
        return None

    def learn(self, variable: str, value: str) -> None:
        """Take in a value; one that is known already is left as it is."""
        news = deque([(variable, value)])
        while news:
            name, text = news.popleft()
            if name in self.values:
                continue
            self.values[name] = text
            self.externals.discard(name)
            for awaited in self._readers.pop(name, ()):
                if name in awaited.missing:
                    awaited.missing.discard(name)
                    news.extend(self._look_at(awaited))

    def _add(self, steps: Iterable[Step]) -> list[tuple[str, str]]:
        """Take in steps; return the values that follow at once."""
        news: list[tuple[str, str]] = []
        for step in steps:
            if isinstance(step, PlannedCall):
                self.num_calls += 1
            awaited = _Awaited(step, {name for name in step.inputs if name not in self.values})
            news += self._wait(awaited)
        return news

    def _wait(self, awaited: _Awaited) -> list[tuple[str, str]]:
        for name in awaited.missing:
            self._readers[name].append(awaited)
        return self._look_at(awaited)

    def _look_at(self, awaited: _Awaited) -> list[tuple[str, str]]:
        """Go on with a step if it has what it waits for; return the values that follow."""
        if not awaited.missing:
            return self._advance(awaited)
        step = awaited.step
        if (
            isinstance(step, PlannedCall)
            and step.output not in self._taken
            and awaited.missing <= self.externals
        ):
            # What its texts are can be read off those of a call of the program.
            self._waiting.remove(step)
            with suppress(ValueError):
                self._waiting.add(step, self.values, awaited.missing)
        return []

    def _advance(self, awaited: _Awaited) -> list[tuple[str, str]]:
        """Go on with a step that has what it waits for; return the values that follow."""
        step = awaited.step
        try:
            match step:
                case PlannedCall():
                    self._make_ready(step)
                    return []
                case PlannedText():
                    return [(step.output, rendered(step.content, self.values))]
                case PlannedMap():
                    return self._expand_map(step)
                case PlannedBranch():
                    return self._expand_branch(step)
                case PlannedLoop():
                    initial = {v.name: v.initial for v in step.variables}
                    return self._expand_round(step, 0, initial)
                case _Gathering():
                    results = [self.values[name] for name in step.inputs]
                    value = closed_set.list_value(results) if step.is_list else results[0]
                    return [(step.output, value)]
                case _RoundEnd():
                    return self._end_round(step)
        except (ValueError, RecursionError):
            # The server fails the same way, and says so to whoever wants the value.
            return []

    def _make_ready(self, step: PlannedCall) -> None:
        self._waiting.remove(step)
        if step.output in self._taken:
            return
        texts = tuple(rendered(content, self.values) for content in step.contents)
        self._ready[step.call.frame, texts].append(step)

    def _expand_map(self, step: PlannedMap) -> list[tuple[str, str]]:
        items = closed_set.list_items(
            transformed(self.values[step.items.variable], step.items.transforms)
        )
        if len(items) > _MAX_ITEMS:
            raise ValueError("too many items")
        news: list[tuple[str, str]] = []
        results: list[str] = []
        for index, item in enumerate(items):
            name = instance_name(step.name, index, step.item)
            self.values[name] = item
            instance = instance_of(step.body, step.name, index, {step.item: name})
            results.append(instance.result)
            news += self._add(instance.steps)
        return news + self._expect(_Gathering(tuple(results), step.output, is_list=True))

    def _expand_branch(self, step: PlannedBranch) -> list[tuple[str, str]]:
        index, body = len(step.cases), step.otherwise
        for position, case in enumerate(step.cases):
            if condition_holds(case.when, self.values):
                index, body = position, case.body
                break
        instance = instance_of(body, step.name, index, {})
        news = self._add(instance.steps)
        return news + self._expect(_Gathering((instance.result,), step.output, is_list=False))

    def _expand_round(
        self, step: PlannedLoop, index: int, bindings: Mapping[str, str]
    ) -> list[tuple[str, str]]:
        instance = instance_of(step.body, step.name, index, bindings)
        asked = instance.names.get(step.until.input.variable, step.until.input.variable)
        news = self._add(instance.steps)
        return news + self._expect(_RoundEnd(step, index, instance, (asked, instance.result)))

    def _end_round(self, end: _RoundEnd) -> list[tuple[str, str]]:
        asked, result = end.inputs
        reading = end.loop.until.input.model_copy(update={"variable": asked})
        until = end.loop.until.model_copy(update={"input": reading})
        if condition_holds(until, self.values) or end.index + 1 == end.loop.max_rounds:
            return [(end.loop.output, self.values[result])]
        following = {v.name: end.instance.names.get(v.next, v.next) for v in end.loop.variables}
        return self._expand_round(end.loop, end.index + 1, following)

    def _expect(self, step: _Gathering | _RoundEnd) -> list[tuple[str, str]]:
        missing = {name for name in step.inputs if name not in self.values}
        return self._wait(_Awaited(step, missing))
