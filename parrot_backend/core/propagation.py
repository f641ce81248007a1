"""How values, failures and cancellations travel through a session's graph.

All walks use a work list, so that the length of a chain is no limit. A propagation changes the
graph and collects in :class:`Effects` what the coordinator must act on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from parrot_backend.core.chat import NO_DETAILS, OutputDetails
from parrot_backend.core.events import RequestUsage
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import VariableId
from parrot_backend.core.nodes import Node, NodeState, Request, TransformNode
from parrot_backend.core.prompt import PromptPart
from parrot_backend.core.resolution import resolve
from parrot_backend.core.transforms import (
    MAX_PROMPT_CHARS,
    MAX_VALUE_CHARS,
    TransformError,
    apply_transforms,
)
from parrot_backend.core.variable import Variable, VariableState
from parrot_backend.errors import Failure, RequestError


@dataclass(slots=True)
class Effects:
    """What a propagation did.

    Attributes:
        ready: Requests whose inputs are all there, with their prompts resolved.
        settled: Variables that got a value, failed or were cancelled.
        stopped: Requests that were queued or running and must not go on.
    """

    ready: list[Request] = field(default_factory=list)
    settled: list[Variable] = field(default_factory=list)
    stopped: list[Request] = field(default_factory=list)


class Propagation:
    """One walk through one graph at one time; use it, then read ``effects``."""

    def __init__(self, graph: SessionGraph, now_s: float) -> None:
        self._graph = graph
        self._now_s = now_s
        self.effects = Effects()

    def admit(self, nodes: Iterable[Node]) -> None:
        """Bring new nodes, given in topological order, to the state their inputs call for."""
        for node in nodes:
            inputs = [self._graph.variables[used] for used in node.inputs]
            broken = next((v for v in inputs if v.failure is not None), None)
            node.missing = sum(v.state is not VariableState.READY for v in inputs)
            if broken is not None and broken.failure is not None:
                self._settle_badly(self._graph.variables[node.output], broken.state, broken.failure)
            elif node.missing == 0 and node.state is NodeState.WAITING:
                self._activate(node)

    def resolve(
        self,
        variable: Variable,
        text: str,
        *,
        token_ids: tuple[int, ...] | None = None,
        usage: RequestUsage | None = None,
        finish_reason: str | None = None,
        details: OutputDetails = NO_DETAILS,
    ) -> None:
        """Give a variable its value and activate what waited for it."""
        variable.token_ids, variable.usage = token_ids, usage
        variable.finish_reason, variable.details = finish_reason, details
        if variable.producer is None or isinstance(self._graph.nodes[variable.producer], Request):
            self._graph.text_chars += (
                len(text) + details.num_chars
            )  # that of a transform is counted already
        values = [(variable, text)]
        while values:
            settled, value = values.pop()
            settled.move(VariableState.READY)
            settled.value = value
            settled.forget_partial()
            self.effects.settled.append(settled)
            for node in self._graph.consumers(settled):
                node.missing -= 1
                if node.missing == 0 and node.state is NodeState.WAITING:
                    computed = self._activate_once(node)
                    if computed is not None:
                        values.append((self._graph.variables[node.output], computed))

    def fail(self, variable: Variable, code: str, message: str) -> None:
        """Fail a variable and, with the path to each, everything that depends on it."""
        failure = Failure(code, message, variable.name, (variable.name,))
        self._settle_badly(variable, VariableState.FAILED, failure)

    def cancel(
        self, targets: Iterable[Variable], keep: Collection[VariableId], message: str
    ) -> None:
        """Cancel variables, what depends on them, and what only they needed.

        Args:
            targets: The variables given up; settled ones are left as they are.
            keep: Variables somebody wants for their own sake; they are not cancelled as a mere
                means.
            message: Why, for people.
        """
        first = len(self.effects.settled)
        for variable in targets:
            if not variable.is_settled:
                failure = Failure("cancelled", message, variable.name, (variable.name,))
                self._settle_badly(variable, VariableState.CANCELLED, failure)
        # The list grows while it is walked: cancelled producers free their own inputs.
        for cancelled in _growing(self.effects.settled, first):
            if cancelled.producer is None:
                continue
            for used in self._graph.nodes[cancelled.producer].inputs:
                needed = self._graph.variables[used]
                if self._is_unneeded(needed, keep):
                    failure = Failure("cancelled", message, needed.name, (needed.name,))
                    self._settle_badly(needed, VariableState.CANCELLED, failure)

    def _is_unneeded(self, variable: Variable, keep: Collection[VariableId]) -> bool:
        return (
            not variable.is_settled
            and variable.producer is not None
            and variable.id not in keep
            and not variable.waiters
            and all(node.has_ended for node in self._graph.consumers(variable))
        )

    def _settle_badly(self, variable: Variable, state: VariableState, failure: Failure) -> None:
        node_state = NodeState.FAILED if state is VariableState.FAILED else NodeState.CANCELLED
        broken = [(variable, failure)]
        while broken:
            settled, cause = broken.pop()
            if settled.is_settled:
                continue
            settled.move(state)
            settled.failure = (
                cause if cause.path[-1] == settled.name else (cause.extended(settled.name))
            )
            settled.forget_partial()
            self.effects.settled.append(settled)
            if settled.producer is not None:
                self._end(self._graph.nodes[settled.producer], node_state)
            for node in self._graph.consumers(settled):
                if not node.has_ended:
                    broken.append((self._graph.variables[node.output], settled.failure))

    def _end(self, node: Node, state: NodeState) -> None:
        if node.has_ended:
            return
        if isinstance(node, Request) and node.state is not NodeState.WAITING:
            self.effects.stopped.append(node)
        node.move(state)
        node.finished_s = self._now_s

    def _activate(self, node: Node) -> None:
        value = self._activate_once(node)
        if value is not None:
            self.resolve(self._graph.variables[node.output], value)

    def _activate_once(self, node: Node) -> str | None:
        """Start a node whose inputs are all there; return the value if it was a transform."""
        node.ready_s = self._now_s
        try:
            if isinstance(node, TransformNode):
                value = apply_transforms(
                    _joined(resolve(node.segments, self._graph.variables)), node.transforms
                )
                self._graph.check_room(len(value))
                self._graph.text_chars += len(value)
                node.move(NodeState.FINISHED)
                node.finished_s = self._now_s
                return value
            assert isinstance(node, Request)
            node.parts = resolve(node.segments, self._graph.variables)
        except (TransformError, RequestError) as exc:
            self.fail(self._graph.variables[node.output], "transform_failed", str(exc))
            return None
        chars = sum(part.num_chars for part in node.parts) + len(node.chat.prompt_text)
        if chars > MAX_PROMPT_CHARS:
            message = f"the prompt has {chars} characters"
            self.fail(self._graph.variables[node.output], "prompt_too_long", message)
            return None
        node.move(NodeState.READY)
        self.effects.ready.append(node)
        return None


def _joined(parts: Iterable[PromptPart]) -> str:
    texts = [part.text for part in parts]
    if sum(map(len, texts)) > MAX_VALUE_CHARS:
        raise TransformError(f"the text would be longer than {MAX_VALUE_CHARS} characters")
    return "".join(texts)


def _growing(items: list[Variable], start: int) -> Iterable[Variable]:
    """Iterate over a list from ``start``, seeing what is appended meanwhile."""
    position = start
    while position < len(items):
        yield items[position]
        position += 1
