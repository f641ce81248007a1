"""All sessions of the server: finding them, and finding again what was submitted before."""

from __future__ import annotations

from collections.abc import Iterator

from parrot_backend.core.events import GraphSubmitted
from parrot_backend.core.graph import SessionGraph
from parrot_backend.core.ids import SessionId, VariableId, session_of
from parrot_backend.core.session import Session
from parrot_backend.core.variable import Variable
from parrot_backend.errors import RequestError


class SessionBook:
    """Sessions by id, and accepted submits by their idempotency key."""

    def __init__(self) -> None:
        self._sessions: dict[SessionId, Session] = {}
        self._submits: dict[tuple[str, str], tuple[SessionId, str]] = {}
        self._next_order = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(self, session_id: SessionId) -> Session | None:
        """Return a session, or None if there is no such session (any more)."""
        return self._sessions.get(session_id)

    def find(self, session_id: SessionId, tenant: str | None = None) -> Session:
        """Return a session; with a tenant, only one of his.

        Raises:
            RequestError: ``unknown_session``; it tells nothing of other tenants' sessions.
        """
        session = self._sessions.get(session_id)
        if session is None or tenant not in (None, session.tenant):
            raise RequestError(
                "unknown_session", f"no session {session_id!r}: it has ended or never was"
            )
        return session

    def find_variable(self, variable: VariableId) -> tuple[Session, Variable]:
        """Return a variable and its session.

        Raises:
            RequestError: ``unknown_session`` or ``unknown_variable``.
        """
        session = self.find(session_of(variable))
        return session, session.find(variable)

    def earlier_submit(self, submission: GraphSubmitted) -> Session | None:
        """Return the session of an equal submit that was accepted before.

        Raises:
            RequestError: ``idempotency_conflict`` when the key came with another body.
        """
        if submission.idempotency_key is None:
            return None
        known = self._submits.get((submission.tenant, submission.idempotency_key))
        if known is None:
            return None
        session_id, digest = known
        if digest != submission.digest:
            raise RequestError(
                "idempotency_conflict", "this idempotency key was used with another body"
            )
        return self._sessions[session_id]

    def session_of_key(self, tenant: str, key: str) -> SessionId | None:
        """Return the session that a submit with this key went to, if it still exists."""
        known = self._submits.get((tenant, key))
        return None if known is None else known[0]

    def prepare(self, submission: GraphSubmitted, now_s: float) -> Session:
        """Return the session a submit is for: a live one, or one not yet in the book.

        Raises:
            RequestError: ``unknown_session``, ``session_closed`` or ``session_exists``.
        """
        if not submission.is_new:
            session = self.find(submission.session, submission.tenant)
            if session.is_closed:
                raise RequestError("session_closed", "the session takes no more calls")
            return session
        if submission.session in self._sessions:
            raise RequestError("session_exists", f"session {submission.session!r} exists already")
        return Session(
            id=submission.session,
            tenant=submission.tenant,
            app=submission.app,
            metadata=submission.metadata,
            order=self._next_order,
            began_s=now_s,
            created_s=now_s,
            touched_s=now_s,
            graph=SessionGraph(submission.session),
            quiet=submission.quiet,
            is_run=submission.is_run,
            ttl_s=submission.ttl_s,
        )

    def accept(self, session: Session, submission: GraphSubmitted) -> None:
        """Put a prepared session in the book and remember the submit's key."""
        if session.id not in self._sessions:
            self._sessions[session.id] = session
            self._next_order += 1
        if submission.idempotency_key is not None:
            key = (submission.tenant, submission.idempotency_key)
            self._submits[key] = (session.id, submission.digest)
            session.submit_keys.append(key)

    def next_order(self) -> int:
        """Return the next place among all runs, which sessions have, too."""
        self._next_order += 1
        return self._next_order - 1

    def forget(self, session: Session) -> None:
        """Remove a session and the keys that led to it."""
        del self._sessions[session.id]
        for key in session.submit_keys:
            del self._submits[key]
