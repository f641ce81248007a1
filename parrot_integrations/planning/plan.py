"""A plan in force: submitted once, then asked by every call of the replayed program.

The plan is a forecast. A call that is found in it gets its reply from the graph that runs already;
one that is not is sent by itself, as if there were no plan. So a wrong forecast costs work, and
never changes an answer. What nobody has claimed when the program ends is given up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from parrot_backend.protocol import Scalar, WireCriteria
from parrot_integrations.couriers import ThreadCourier
from parrot_integrations.criteria import UNSTATED
from parrot_integrations.errors import ProgramError
from parrot_integrations.planning.builder import PlannedProgram
from parrot_integrations.planning.calls import ModelCall
from parrot_integrations.planning.clients import Connection
from parrot_integrations.planning.mirror import Match, Mirror
from parrot_integrations.planning.planned_reply import PlannedReply
from parrot_integrations.planning.reply import Direct, Reply
from parrot_integrations.planning.report import PlanReport
from parrot_integrations.planning.session import PlanSession
from parrot_integrations.planning.steps import PlannedCall, all_steps, bodies_of, to_nodes
from parrot_integrations.settings import ClientSettings

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """How a plan is sent.

    Attributes:
        app: Name of the application.
        metadata: Labels of the session.
        criteria: How urgent the values are in which the program ends.
        tokens: Whether the program reads texts while they are generated.
    """

    app: str = ""
    metadata: Mapping[str, Scalar] | None = None
    criteria: WireCriteria = UNSTATED
    tokens: bool = True


def require_whole(program: PlannedProgram) -> None:
    """Make sure that everything in a program is planned; a user may wish that.

    Raises:
        ProgramError: ``not_planned``: a step of it is left to the client.
    """
    for note in (*program.cuts, *program.late):
        raise ProgramError(
            "not_planned", f"{note.where} cannot be planned: {note.why} (strict=True)"
        )


class Plan:
    """One planned program; may be used from any thread and event loop.

    Args:
        program: What the program will do, as far as it can be foreseen.
        connection: The server of its calls; None if there are none.
        terms: How it is sent.

    Attributes:
        program: As given.
    """

    def __init__(
        self, program: PlannedProgram, connection: Connection | None, terms: PlanTerms
    ) -> None:
        self.program = program
        self._connection = connection
        self._terms = terms
        self._lock = threading.Lock()
        self._mirror = Mirror.of(program.steps, program.constants, program.externals)
        self._session: PlanSession | None = None
        self._num_claimed = 0
        self._num_missed = 0
        self._num_lost = 0
        self._is_closed = False

    def start(self) -> None:
        """Send the graph if any call of it could run now.

        Else it is sent with the first claim: what a step of the client makes before any call can
        go along with the submit, which saves setting it afterwards.
        """
        if self._mirror.has_ready_calls:
            with self._lock:
                self._submit()

    def claim(self, call: ModelCall, *, endpoint: ClientSettings, direct: Direct) -> Reply | None:
        """Return the reply of the planned call that is exactly this one; None if there is none.

        Args:
            call: With concrete texts.
            endpoint: The server it is meant for.
            direct: Takes over if the plan is lost; it is not read before.
        """
        with self._lock:
            match = None
            # A call that is refused because nothing is said in it would not be, with a value there.
            if self._is_in_force() and any(call.texts) and self._is_mine(endpoint):
                match = self._find(call)
            if match is None:
                return None
            for name, value in match.learnt.items():
                self._learn(name, value)
                if self._session is not None:
                    self._session.set(name, value)
            session = self._session or self._submit()
            if session is None:
                return None
            self._num_claimed += 1
            return PlannedReply(self, match.call.output, session.slot(match.call.output), direct)

    def miss(self) -> None:
        """Count a call of the program that no plan has."""
        with self._lock:
            self._num_missed += 1

    def learn(self, output: str, value: str) -> None:
        """Take in the value of a claimed call, before the program goes on with it."""
        with self._lock:
            self._learn(output, value)

    def tell(self, external: str, value: str) -> None:
        """Take in a late-bound value before a call with it is made; does not wait for the server.

        Args:
            external: The late-bound variable; one that has a value keeps it.
            value: Its value.
        """
        with self._lock:
            if not self._is_in_force() or external not in self._mirror.externals:
                return
            self._learn(external, value)
            if self._session is not None:
                self._session.set(external, value)
            elif self._mirror.has_ready_calls:
                self._submit()

    def lose(self) -> None:
        """Count a claimed call that had to be sent by itself after all."""
        with self._lock:
            self._num_lost += 1

    def give_up(self, output: str) -> None:
        """Cancel a claimed call that nobody waits for any more; does not wait for the server."""
        with self._lock:
            if self._session is not None and not self._is_closed:
                self._session.cancel(output)

    def close(self) -> None:
        """Give up what is unfinished; does not wait for the server."""
        with self._lock:
            if self._session is not None and not self._is_closed:
                self._session.close()
            self._is_closed = True

    def report(self) -> PlanReport:
        """Return what was planned and what came of it."""
        with self._lock:
            session = self._session
            return PlanReport(
                steps=self.program.steps,
                num_planned=self._mirror.num_calls,
                num_claimed=self._num_claimed,
                num_missed=self._num_missed,
                num_lost=self._num_lost,
                num_submits=0 if session is None else session.num_submits,
                num_sets=0 if session is None else session.num_sets,
                late=self.program.late,
                cuts=self.program.cuts,
            )

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flow chart."""
        return self.report().to_mermaid()

    def _submit(self) -> PlanSession | None:
        """Send the graph; None, and the end of the plan, if it cannot be put into a request."""
        assert self._connection is not None, "a plan with calls has a server"
        variables: dict[str, str | None] = dict(self.program.constants)
        for name in self.program.externals:
            variables[name] = self._mirror.values.get(name)
        try:
            courier = ThreadCourier(self._connection.client())
            terms = self._terms
            session = PlanSession(courier, terms.app, terms.metadata or {}, tokens=terms.tokens)
            followed = {s.output: s.name for s in self.program.steps if bodies_of(s)}
            session.submit(to_nodes(self.program.steps), variables, self._wanted(), followed)
        except Exception:
            # The program's own calls will show what is wrong with one of them.
            _logger.debug("a plan could not be sent", exc_info=True)
            self._is_closed = True
            return None
        self._session = session
        return session

    def _wanted(self) -> dict[str, WireCriteria | None]:
        """Return the outputs to report; those that nothing reads are what the program ends with."""
        read = {name for step in all_steps(self.program.steps) for name in step.inputs}
        read |= {body.result for step in all_steps(self.program.steps) for body in bodies_of(step)}
        wanted: dict[str, WireCriteria | None] = {}
        for step in self.program.steps:
            if step.output not in read:
                wanted[step.output] = self._terms.criteria
            elif isinstance(step, PlannedCall) or bodies_of(step):
                wanted[step.output] = None
        return wanted

    def _find(self, call: ModelCall) -> Match | None:
        try:
            return self._mirror.find(call)
        except (ValueError, RecursionError):
            # No text of the program may make a call fail that would not without a plan.
            _logger.debug("a call could not be looked for in its plan", exc_info=True)
            return None

    def _learn(self, name: str, value: str) -> None:
        try:
            self._mirror.learn(name, value)
        except (ValueError, RecursionError):
            _logger.debug("what follows from a value could not be told", exc_info=True)

    def _is_in_force(self) -> bool:
        return not self._is_closed and (self._session is None or not self._session.is_lost)

    def _is_mine(self, endpoint: ClientSettings) -> bool:
        return self._connection is not None and self._connection.settings.is_same_server(endpoint)
