"""Progress of the programs: what engines report, turned into values, failures and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice

from parrot_backend.core.account import CallAccount, CallEnd, Ending, unmade
from parrot_backend.core.annotating import Annotator, in_stage
from parrot_backend.core.commands import Command
from parrot_backend.core.config import CoreConfig
from parrot_backend.core.deduction import deduce_objectives, nodes_concerned
from parrot_backend.core.effects import Effects, Limits
from parrot_backend.core.events import RequestFailed, RequestFinished, TokensGenerated
from parrot_backend.core.fleet import Fleet
from parrot_backend.core.following import Following
from parrot_backend.core.foresight import requests_fed_by
from parrot_backend.core.ids import EngineId
from parrot_backend.core.lengths import LengthBook
from parrot_backend.core.nodes import Node, NodeState, Request
from parrot_backend.core.optimiser import Optimiser
from parrot_backend.core.outlook import Outlook
from parrot_backend.core.propagation import Propagation
from parrot_backend.core.session import Session
from parrot_backend.core.session_book import SessionBook
from parrot_backend.core.variable import Variable, VariableState
from parrot_backend.core.waiters import Waiters

#: Of a value that thousands wait for, only so many consumers are looked at when it is being made.
_MAX_FILLS_CONSIDERED = 64

#: A deduction may go over so many requests for each new one; some tens of microseconds.
_DEDUCED_PER_NEW = 16


class Progress:
    """Moves requests and variables on, and answers who waits for them.

    Attributes:
        waiters: Who waits for what.
        following: Streams that report instances.
        annotator: What is found in the texts of calls.
        optimiser: Which calls need no engine.
        outlook: What requests, paths and jobs are expected to take.
        account: How many requests there are, and how they end.
    """

    def __init__(
        self, config: CoreConfig, book: SessionBook, fleet: Fleet, emit: Callable[[Command], None]
    ) -> None:
        self._config = config
        self._book = book
        self._fleet = fleet
        self.waiters = Waiters(emit)
        self.following = Following(emit, self.waiters.attach)
        lengths = LengthBook(config.lengths)
        self.annotator = Annotator(config.discovery, lengths)
        self.outlook = Outlook(config, lengths, fleet)
        self.optimiser = Optimiser(config.optimiser, fleet)
        self.account = CallAccount()
        self._num_requests = 0

    # --- engine events ---------------------------------------------------------------------

    def stream(self, event: TokensGenerated, now_s: float) -> None:
        """More text of a running request."""
        request = self._fleet.running(event.attempt, now_s)
        if request is None:
            return
        if request.first_token_s is None:
            request.first_token_s = now_s
            self._fleet.scheduler.begin(request, now_s)
        variable = self._output_of(request)
        if variable.state is VariableState.EMPTY:
            variable.move(VariableState.GENERATING)
        if not event.text:
            return
        kept = variable.partial_reasoning if event.is_reasoning else variable.partial
        kept.append(event.text)
        self.waiters.tell(
            variable, event.text, is_reasoning=event.is_reasoning, logprobs=event.logprobs
        )

    def finish(self, event: RequestFinished, now_s: float) -> None:
        """A running request produced its output."""
        request = self._fleet.end_attempt(event.attempt, now_s)
        if request is None:
            return
        request.usage = event.usage
        request.move(NodeState.FINISHED)
        request.finished_s = now_s
        self.optimiser.finished(request, event)
        if request.first_token_s is None:
            assert request.placed_s is not None
            request.first_token_s = max(request.placed_s, now_s - (event.usage.decode_s or 0.0))
        session = self._book.find(request.session)
        output = session.graph.variables[request.output]
        if request.quiet:
            self.waiters.tell_late(output, event)
        continuation = self._fleet.learn(request, event.text)
        self.outlook.learn(session, request, event.finish_reason, now_s)
        self.account.end(session, Ending(request, output, CallEnd.FINISHED), now_s)
        session.touched_s = now_s
        propagation = self.propagation(session, now_s)
        propagation.resolve(
            output,
            event.text,
            token_ids=event.token_ids,
            usage=event.usage,
            finish_reason=event.finish_reason,
            details=event.details,
        )
        if event.spliced:
            with self._fleet.splicing.going_on(event.spliced, continuation):
                self.carry_out(session, propagation.effects, now_s, request)
            for node in session.graph.consumers(output):
                if isinstance(node, Request) and node.attempt in event.spliced:
                    self.look_ahead(node)
        else:
            self.carry_out(session, propagation.effects, now_s, request)
        # Now those who go on from here have been counted.
        if not event.details.hides_text:  # else what the engine holds goes on in another way
            self._fleet.keep_continuation(request, continuation, event.attempt)
        self._fleet.foresight.forget(request.id)

    def fail_attempt(self, event: RequestFailed, now_s: float) -> None:
        """A running request failed; try again if that may help."""
        request = self._fleet.end_attempt(event.attempt, now_s)
        if request is None:
            return
        if event.is_retryable:
            self._retry(request, event.code, event.message, now_s)
        else:
            self.fail(request, event.code, event.message, now_s)

    def lose_engine(self, engine: EngineId, reason: str, now_s: float) -> None:
        """An engine is gone: what ran there is tried again elsewhere."""
        for request in self._fleet.lose(engine, now_s):
            self._retry(request, "engine_lost", f"engine {engine} was lost: {reason}", now_s)

    def fail_unserved(self, now_s: float) -> None:
        """Fail the requests that have waited too long for any engine to serve them."""
        limit_s = self._config.no_engine_s
        for request in self._fleet.overdue(now_s):
            self.fail(request, "no_engine", f"no engine served it for {limit_s:g} s", now_s)

    def fail(self, request: Request, code: str, message: str, now_s: float) -> None:
        """Fail a request's variable and all that depends on it."""
        session = self._book.find(request.session)
        propagation = self.propagation(session, now_s)
        propagation.fail(self._output_of(request), code, message)
        self.carry_out(session, propagation.effects, now_s)

    def _retry(self, request: Request, code: str, message: str, now_s: float) -> None:
        """Queue a request again whose attempt has been taken off its engine."""
        assert request.engine is not None
        assert request.attempt is not None
        self._fleet.splicing.lose_attempt(request.attempt)
        request.avoided.append(request.engine)
        request.attempt = request.engine = None
        if request.attempts >= self._config.max_attempts:
            self.fail(request, code, f"{message} (attempt {request.attempts})", now_s)
            return
        variable = self._output_of(request)
        if variable.state is VariableState.GENERATING:
            variable.move(VariableState.EMPTY)
        if variable.forget_partial():
            self.waiters.reset(variable)
        request.first_token_s = None
        request.quiet = self._book.find(request.session).quiet
        request.ready_s = now_s
        request.move(NodeState.READY)
        self._fleet.retry(request, now_s)

    # --- acting ----------------------------------------------------------------------------

    def propagation(self, session: Session, now_s: float) -> Propagation:
        """Return a propagation through a session's graph, to be carried out."""
        requests = self._config.max_unfinished_calls - self.account.num_unfinished
        limits = Limits(self._config.max_nodes_per_session, requests)
        return Propagation(session.graph, now_s, limits, session.annotations)

    def take_in(self, session: Session, nodes: Iterable[Node], lengthened: Iterable[Node]) -> None:
        """Count and number the requests among new nodes, and tell what their coming changes."""
        for node in nodes:
            session.changed[node.id] = None
            if isinstance(node, Request):
                node.order = self._num_requests
                node.session_order, node.run_began_s = session.order, session.began_s
                node.quiet = session.quiet
                self._num_requests += 1
                self.account.begin(session)
        for node in lengthened:
            if isinstance(node, Request):
                self._fleet.scheduler.update(node, lambda: None)
                self._fleet.update(node)

    def annotate(self, session: Session, nodes: Iterable[Node]) -> None:
        """Find out from the texts of new requests what they do not declare."""
        for node in nodes:
            if isinstance(node, Request):
                self._fleet.settle_model(node)
                self.annotator.begin(session, node, self._fleet.tokens_per_char)

    def deduce(self, session: Session) -> None:
        """Give the requests of a session the objectives that follow from what is wanted.

        What hangs together with nothing that has changed has them already.
        """
        wishes = session.annotations
        concerned = nodes_concerned(session.graph, session.changed)
        wanted = {n.output: wishes[n.output] for n in concerned if n.output in wishes}
        session.changed = {}
        objectives = deduce_objectives(session.graph, wanted)
        session.num_deduced, session.num_undeduced = len(objectives), 0
        for node_id, deduced in objectives.items():
            node = session.graph.nodes[node_id]
            assert isinstance(node, Request)
            objective = in_stage(deduced, node, wanted.get(node.output))
            if node.objective != objective and not node.has_ended:
                self._fleet.scheduler.set_objective(node, objective)
                self._fleet.update(node)
                self.optimiser.reconsider(node)

    def expect(self, session: Session, nodes: Iterable[Node]) -> None:
        """Take in the requests among new nodes that wait for inputs."""
        for node in nodes:
            if isinstance(node, Request) and node.state is NodeState.WAITING:
                self._fleet.expect(session.graph, node)
                self._fleet.foresight.fill(session.graph, node)

    def _deduce_for(self, session: Session, added: list[Request], cause: Request | None) -> None:
        """Give new requests objectives: deduced, or for the time being those of their cause.

        A deduction goes over the whole session. Thousands of loops that each begin another round
        would make that the square of their number, so it must have something to go over.
        """
        session.num_undeduced += len(added)
        cost = session.num_deduced + session.num_undeduced
        if cause is None or session.num_undeduced * _DEDUCED_PER_NEW >= cost:
            self.deduce(session)
            return
        for request in added:
            request.objective = replace(cause.objective, tpot_s=None, ttft_s=None)

    def carry_out(
        self, session: Session, effects: Effects, now_s: float, cause: Request | None = None
    ) -> None:
        """Turn what a propagation did into aborts, answers and queue entries.

        It began with the end of ``cause``, if there is one.
        """
        for variable in effects.settled:
            session.note_settled(variable)
        for variable_id in effects.let_go:
            session.note_wished(session.graph.variables[variable_id])
        self.following.report(session, effects.added)
        if effects.added:
            self.take_in(session, effects.added, effects.lengthened.values())
            self.outlook.begin(session, effects.added)
            requests = [node for node in effects.added if isinstance(node, Request)]
            self._deduce_for(session, requests, cause)
        for request in effects.stopped:
            self._fleet.stop(request)
        for variable in effects.settled:
            node = None if variable.producer is None else session.graph.nodes[variable.producer]
            if isinstance(node, Request):
                self.annotator.end(session, node, variable)
                self.outlook.end(session, node)
                if variable.failure is not None:
                    self.account.end(session, Ending(node, variable, unmade(variable)), now_s)
                    self.optimiser.failed(node, variable)
                is_last = not session.num_unfinished
                self._fleet.foresight.anticipation.ended(node, is_last=is_last)
            if variable.failure is not None and node is not None:
                self._fleet.foresight.forget(node.id)
                self._fleet.splicing.drop(node.id)
            self.waiters.answer_all(variable)
            self.following.end(session, variable)
            if variable.state is VariableState.READY:
                self.expect(session, session.graph.consumers(variable))
        for request in effects.ready:
            if not request.has_ended:
                self.outlook.ready(session, request)
                self.optimiser.begin(request, now_s)
        if effects.added:
            self.expect(session, effects.added)

    def look_ahead(self, request: Request) -> None:
        """A request runs now: prompts that wait for its output may be filled meanwhile."""
        graph = self._book.find(request.session).graph
        if graph.is_read(request.output):
            self._fleet.splicing.look_ahead(graph, request, self._fleet.scheduler.engines)
            for consumer in islice(requests_fed_by(graph, request.output), _MAX_FILLS_CONSIDERED):
                self._fleet.foresight.fill(graph, consumer)

    def _output_of(self, request: Request) -> Variable:
        return self._book.find(request.session).graph.variables[request.output]
