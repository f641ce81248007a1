"""The builder: what an adapter's tracer records while it goes through a program. Pure.

The tracer meets the program's steps in order. For each it either records what the step does with
symbolic values, or says why it cannot: then the step's result is *late-bound*, a variable of the
graph that the client sets when the replay has come so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from parrot_backend.protocol import (
    Condition,
    ConditionOp,
    InputSegment,
    LoopVariable,
    TextSegment,
)
from parrot_integrations.graph import NameBook
from parrot_integrations.planning.calls import ModelCall, Segments
from parrot_integrations.planning.steps import (
    PlannedBody,
    PlannedBranch,
    PlannedCall,
    PlannedCase,
    PlannedLoop,
    PlannedMap,
    PlannedText,
    Step,
)
from parrot_integrations.planning.symbols import (
    CannotPlan,
    Markers,
    Symbol,
    SymbolicText,
    without_markers,
)


@dataclass(frozen=True, slots=True)
class Note:
    """Something that could not be planned: where, and why."""

    where: str
    why: str


@dataclass(frozen=True, slots=True)
class Question:
    """A condition of the closed set, without the value it is asked of."""

    op: ConditionOp
    text: str = ""
    ignore_case: bool = False
    negate: bool = False


@dataclass(frozen=True, slots=True)
class PlannedProgram:
    """What was recorded.

    Attributes:
        steps: In order.
        constants: Variables with their values.
        externals: Variables that the client sets, with what people call them.
        late: Steps of the client between planned calls.
        cuts: Steps that hold calls of models which could not be planned.
    """

    steps: tuple[Step, ...]
    constants: dict[str, str]
    externals: dict[str, str]
    late: tuple[Note, ...]
    cuts: tuple[Note, ...]


@dataclass(slots=True)
class PlanBuilder:
    """Records one plan."""

    markers: Markers = field(default_factory=Markers)
    num_calls: int = 0
    _names: NameBook = field(default_factory=NameBook)
    _scopes: list[list[Step]] = field(default_factory=lambda: [[]])
    _constants: dict[str, str] = field(default_factory=dict)
    _externals: dict[str, str] = field(default_factory=dict)
    _late: list[Note] = field(default_factory=list)
    #: Variables that come from late-bound ones, without a call between.
    _late_names: set[str] = field(default_factory=set)
    _cuts: list[Note] = field(default_factory=list)

    @property
    def num_cuts(self) -> int:
        """How many steps were left with their calls."""
        return len(self._cuts)

    def program(self) -> PlannedProgram:
        """Return what was recorded."""
        (steps,) = self._scopes
        return PlannedProgram(
            tuple(steps),
            dict(self._constants),
            dict(self._externals),
            tuple(self._late),
            tuple(self._cuts),
        )

    def text_of(self, symbol: Symbol) -> SymbolicText:
        """Return the marker of a symbol."""
        return self.markers.mark(symbol)

    def call(self, call: ModelCall, label: str, stage: str | None = None) -> Symbol:
        """Record a call whose texts may hold markers.

        Raises:
            CannotPlan: A template does something with a generated value that cannot be repeated.
        """
        contents = tuple(self.markers.segments(text) for text in call.texts)
        name = self._names.unique(label)
        output = self._names.unique(f"{label}-out")
        self._scopes[-1].append(PlannedCall(name, call, contents, output, label, stage))
        self.num_calls += 1
        return Symbol(output)

    def late(self, where: str, why: str) -> SymbolicText:
        """Record a text that a step of the client makes; return its marker.

        Raises:
            CannotPlan: Within a body, whose instances nobody could set values for.
        """
        if len(self._scopes) > 1:
            raise CannotPlan(f"{where}: {why}")
        name = self._names.unique(where)
        self._externals[name] = where
        self._late_names.add(name)
        self._late.append(Note(where, without_markers(why)))
        return self.text_of(Symbol(name))

    def cut(self, where: str, why: str) -> None:
        """Note that the calls of a step are not planned."""
        self._cuts.append(Note(where, without_markers(why)))

    def variable_of(self, text: str, hint: str) -> str:
        """Return a variable whose value is a text that may hold markers.

        Raises:
            CannotPlan: As for :meth:`call`.
        """
        segments = self.markers.segments(text)
        match segments:
            case [InputSegment(variable=variable, transforms=())]:
                return variable
            case [] | [TextSegment()]:
                name = self._names.unique(hint)
                self._constants[name] = "".join(s.text for s in segments if s.type == "text")
                return name
        return self._text(segments, hint)

    def map(self, items: Symbol, label: str, trace_item: Callable[[SymbolicText], str]) -> Symbol:
        """Record the same steps for each item of a list to come.

        Args:
            items: The list.
            label: What people call it.
            trace_item: Traces the body with the marker of an item; returns the result's text.

        Raises:
            CannotPlan: The body cannot be planned as a whole.
        """
        self._check_not_late(items.variable)
        item = self._names.unique(f"{label}-item")
        name, output = self._names.unique(label), self._names.unique(f"{label}-list")
        body = self._body(label, lambda: trace_item(self.text_of(Symbol(item))))
        reading = InputSegment(variable=items.variable, transforms=items.transforms)
        self._scopes[-1].append(PlannedMap(name, reading, item, body, output))
        return Symbol(output, is_list=True)

    def branch(
        self,
        label: str,
        cases: Sequence[tuple[Question, str, Callable[[], str]]],
        otherwise: Callable[[], str],
    ) -> Symbol:
        """Record ways to go on that depend on texts to come.

        Args:
            label: What people call it.
            cases: A condition, the text that it is asked of, and what traces the way.
            otherwise: Traces the way if no condition holds.

        Raises:
            CannotPlan: One of the ways cannot be planned as a whole.
        """
        asked = [self.variable_of(text, f"{label}-on") for _, text, _ in cases]
        self._check_not_late(*asked)
        name, output = self._names.unique(label), self._names.unique(f"{label}-out")
        planned = tuple(
            PlannedCase(_condition(question, variable), self._body(label, trace))
            for (question, _, trace), variable in zip(cases, asked, strict=True)
        )
        step = PlannedBranch(name, planned, self._body(label, otherwise), output)
        self._scopes[-1].append(step)
        return Symbol(output)

    def loop(
        self,
        label: str,
        state: Mapping[str, str],
        trace_round: Callable[[dict[str, SymbolicText]], Mapping[str, str]],
        until: tuple[Question, str],
        result: str,
        max_rounds: int,
    ) -> Symbol:
        """Record steps that are repeated on their own results until one is as wanted.

        Args:
            label: What people call it.
            state: What the first round starts from, by name.
            trace_round: Traces the body with the markers of the state before; returns what it
                makes, by name. What it does not make stays.
            until: A condition, and the name of what it is asked of after each round.
            result: The name of what the loop ends with.
            max_rounds: Bound.

        Raises:
            CannotPlan: The body cannot be planned as a whole.
        """
        initial = {key: self.variable_of(text, f"{label}-{key}") for key, text in state.items()}
        self._check_not_late(*initial.values())
        before = {key: self._names.unique(f"{label}-{key}-before") for key in state}
        after = dict(before)

        def trace() -> str:
            made = trace_round({key: self.text_of(Symbol(name)) for key, name in before.items()})
            after.update((k, self.variable_of(text, f"{label}-{k}")) for k, text in made.items())
            return self.text_of(Symbol(after[result]))

        name, output = self._names.unique(label), self._names.unique(f"{label}-out")
        body = self._body(label, trace)
        variables = tuple(
            LoopVariable(name=before[key], initial=initial[key], next=after[key]) for key in state
        )
        question, key = until
        condition = _condition(question, after[key])
        self._scopes[-1].append(PlannedLoop(name, variables, body, condition, max_rounds, output))
        return Symbol(output)

    def _body(self, label: str, trace: Callable[[], str]) -> PlannedBody:
        num_calls, num_late, num_cuts = self.num_calls, len(self._late), len(self._cuts)
        self._scopes.append([])
        try:
            result = self.variable_of(trace(), f"{label}-result")
        except CannotPlan:
            self.num_calls = num_calls
            del self._late[num_late:], self._cuts[num_cuts:]
            raise
        finally:
            steps = self._scopes.pop()
        return PlannedBody(tuple(steps), result)

    def _text(self, segments: Segments, hint: str) -> str:
        name = self._names.unique(hint)
        step = PlannedText(name, segments, name)
        self._scopes[-1].append(step)
        if not self._late_names.isdisjoint(step.inputs):
            self._late_names.add(name)
        return name

    def _check_not_late(self, *variables: str) -> None:
        """Make sure that control flow does not depend on what the client makes.

        The client tells the server a late-bound value when it finds it in a call that it makes, and
        there would be no call before the server knows the value.

        Raises:
            CannotPlan: It does.
        """
        if not self._late_names.isdisjoint(variables):
            raise CannotPlan("it depends on a text that is made on the client")


def _condition(question: Question, variable: str) -> Condition:
    return Condition(
        input=InputSegment(variable=variable),
        op=question.op,
        text=question.text,
        ignore_case=question.ignore_case,
        negate=question.negate,
    )
