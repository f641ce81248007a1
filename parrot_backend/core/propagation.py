"""How values, failures and cancellations travel through a session's graph, and how it grows.

All walks use work lists, so that the length of a chain is no limit, nor the depth of what control
nodes bring forth. A propagation changes the graph and collects in :class:`Effects` what the
coordinator must act on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from parrot_backend.core.chat import NO_DETAILS, OutputDetails
from parrot_backend.core.control import ControlNode, Instance
from parrot_backend.core.effects import UNLIMITED, Effects, Limits
from parrot_backend.core.events import RequestUsage
from parrot_backend.core.expansion import Cost, cost_of, expand
from parrot_backend.core.graph import MAX_GROWN_REFERENCES, SessionGraph
from parrot_backend.core.ids import VariableId, name_of
from parrot_backend.core.nodes import Node, NodeState, Request, TransformNode
from parrot_backend.core.prompt import PromptPart, chars_of
from parrot_backend.core.resolution import resolve
from parrot_backend.core.transforms import (
    MAX_PROMPT_CHARS,
    MAX_VALUE_CHARS,
    TransformError,
    apply_transforms,
)
from parrot_backend.core.variable import Variable, VariableState
from parrot_backend.errors import CapacityError, Failure, ParrotError, RequestError


class Propagation:
    """One walk through one graph at one time; use it, then read ``effects``.

    Args:
        graph: The graph; it is changed.
        now_s: The time.
        limits: How far control nodes may make it grow.
        wanted: Variables somebody wants for their own sake: a failure of what they were made for
            does not cancel them.
    """

    def __init__(
        self,
        graph: SessionGraph,
        now_s: float,
        limits: Limits = UNLIMITED,
        wanted: Collection[VariableId] = (),
    ) -> None:
        self._graph = graph
        self._now_s = now_s
        self._limits = limits
        self._wanted = wanted
        self._num_requests = 0
        self._arrivals: deque[Node] = deque()
        self._values: list[tuple[Variable, str]] = []
        self._given_up: list[ControlNode] = []
        self.effects = Effects()

    def admit(self, nodes: Iterable[Node]) -> None:
        """Bring new nodes, given in topological order, to the state their inputs call for."""
        self._arrivals.extend(nodes)
        self._run()

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
            # Others are counted when they are computed.
            self._graph.text_chars += len(text) + details.num_chars
        self._values.append((variable, text))
        self._run()

    def fail(self, variable: Variable, code: str, message: str) -> None:
        """Fail a variable and, with the path to each, everything that depends on it."""
        self._fail(variable, code, message)
        self._run()

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
        position = len(self.effects.settled)
        for variable in targets:
            if not variable.is_settled:
                self._cancel(variable, message)
        # The list grows while it is walked: cancelled producers free what they read.
        while self._given_up or position < len(self.effects.settled):
            if self._given_up:
                self._release(self._given_up.pop(), keep)
                continue
            cancelled = self.effects.settled[position]
            position += 1
            if cancelled.producer is None:
                continue
            for used in self._graph.nodes[cancelled.producer].reads:
                needed = self._graph.variables[used]
                if self._is_unneeded(needed, keep):
                    self._cancel(needed, message)

    def prune(self, nodes: Iterable[Node]) -> None:
        """Cancel nodes that nobody can want, given readers before what they read."""
        for name, variable in ((name_of(n.output), self._graph.variables[n.output]) for n in nodes):
            failure = Failure("pruned", "nobody can want it", name, (name,))
            self._settle_badly(variable, VariableState.CANCELLED, failure)

    # --- the work lists --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            if self._values:
                self._give(*self._values.pop())
            elif self._given_up:
                self._release(self._given_up.pop(), self._wanted)
            elif self._arrivals:
                self._look_at(self._arrivals.popleft())
            else:
                return

    def _give(self, variable: Variable, value: str) -> None:
        variable.move(VariableState.READY)
        variable.value = value
        variable.forget_partial()
        self.effects.settled.append(variable)
        for node in list(self._graph.consumers(variable)):  # an instance may add itself
            node.missing -= 1
            if node.missing == 0 and node.state is NodeState.WAITING:
                self._activate(node)

    def _look_at(self, node: Node) -> None:
        """Take in a node that is new, or waits for something new."""
        inputs = [self._graph.variables[used] for used in node.inputs]
        broken = next((v for v in inputs if v.failure is not None), None)
        node.missing = sum(v.state is not VariableState.READY for v in inputs)
        if broken is not None and broken.failure is not None:
            self._settle_badly(self._graph.variables[node.output], broken.state, broken.failure)
        elif node.missing == 0 and node.state is NodeState.WAITING:
            self._activate(node)

    # --- failures --------------------------------------------------------------------------

    def _is_unneeded(self, variable: Variable, keep: Collection[VariableId]) -> bool:
        return (
            not variable.is_settled
            and variable.producer is not None
            and variable.id not in keep
            and not variable.waiters
            and all(node.has_ended for node in self._graph.readers(variable))
        )

    def _release(self, control: ControlNode, keep: Collection[VariableId]) -> None:
        """Cancel what the instances of a control node without a value made for it alone."""
        message = f"{name_of(control.output)} will have no value"
        pending: list[Iterator[VariableId]] = [reversed(control.made)]
        while pending:
            made = next(pending[-1], None)
            if made is None:
                pending.pop()
            elif self._is_unneeded(self._graph.variables[made], keep):
                self._cancel(self._graph.variables[made], message)
                # What an inner one has made may read what comes next.
                pending += [reversed(inner.made) for inner in self._given_up]
                self._given_up.clear()

    def _fail(self, variable: Variable, code: str, message: str) -> None:
        failure = Failure(code, message, variable.name, (variable.name,))
        self._settle_badly(variable, VariableState.FAILED, failure)

    def _cancel(self, variable: Variable, message: str) -> None:
        failure = Failure("cancelled", message, variable.name, (variable.name,))
        self._settle_badly(variable, VariableState.CANCELLED, failure)

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
        if isinstance(node, ControlNode):
            self._given_up.append(node)
        node.move(state)
        node.finished_s = self._now_s

    # --- starting --------------------------------------------------------------------------

    def _activate(self, node: Node) -> None:
        """Start a node whose inputs are all there, or let it go on."""
        if node.ready_s is None:
            node.ready_s = self._now_s
        output = self._graph.variables[node.output]
        try:
            if isinstance(node, ControlNode):
                self._advance(node)
            elif isinstance(node, TransformNode):
                self._finish(node, apply_transforms(self._joined(node), node.transforms))
            else:
                assert isinstance(node, Request)
                self._make_ready(node)
        except TransformError as exc:
            self._fail(output, "transform_failed", str(exc))
        except ParrotError as error:
            # A call or a transform that breaks a limit has a text that is too long.
            code = error.code if isinstance(node, ControlNode) else "transform_failed"
            self._fail(output, code, error.message)

    def _make_ready(self, request: Request) -> None:
        request.parts = resolve(request.segments, self._graph.variables)
        chars = chars_of(request.parts) + len(request.chat.prompt_text)
        if chars > MAX_PROMPT_CHARS:
            message = f"the prompt has {chars} characters"
            self._fail(self._graph.variables[request.output], "prompt_too_long", message)
            return
        request.move(NodeState.READY)
        self.effects.ready.append(request)

    def _finish(self, node: Node, value: str) -> None:
        self._graph.check_room(len(value))
        self._graph.text_chars += len(value)
        node.move(NodeState.FINISHED)
        node.finished_s = self._now_s
        self._values.append((self._graph.variables[node.output], value))

    def _joined(self, node: TransformNode) -> str:
        parts: Iterable[PromptPart] = resolve(node.segments, self._graph.variables)
        texts = [part.text for part in parts]
        if sum(map(len, texts)) > MAX_VALUE_CHARS:
            raise TransformError(f"the text would be longer than {MAX_VALUE_CHARS} characters")
        return "".join(texts)

    # --- control nodes ---------------------------------------------------------------------

    def _advance(self, control: ControlNode) -> None:
        if control.results is not None:
            self._finish(control, control.value(self._graph.variables))
            return
        instances: tuple[Instance, ...] = control.due(self._graph.variables)
        cost = cost_of(instances)
        self._check_limits(cost)
        self._graph.num_instances += cost.instances
        self._graph.num_grown_references += cost.references
        self._num_requests += cost.requests
        expansion, before = expand(control, instances), control.captures
        for node in self._graph.grow(control, expansion, self._now_s):
            self.effects.lengthened[node.id] = node
        reads = control.reads
        self.effects.let_go += [used for used in before if used not in reads]
        self.effects.added += expansion.nodes
        self._arrivals.extend(expansion.nodes)
        self._arrivals.append(control)

    def _check_limits(self, cost: Cost) -> None:
        graph, limits = self._graph, self._limits
        references = graph.num_grown_references + cost.references
        for number, limit, what in (
            (len(graph.nodes) + cost.nodes, limits.nodes, "nodes"),
            (graph.num_instances + cost.instances, limits.nodes, "instances of bodies"),
            (references, MAX_GROWN_REFERENCES, "references"),
        ):
            if number > limit:
                message = f"the session would hold {number} {what}, {limit} are allowed"
                raise RequestError("graph_too_large", message)
        if self._num_requests + cost.requests > limits.requests:
            raise CapacityError("saturated", f"{cost.requests} more calls would be too many")
        graph.check_room(cost.chars)
