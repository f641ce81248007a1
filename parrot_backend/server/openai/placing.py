"""Which session the calls of a request go into.

That of their name, if the caller gives one; else that of the chat they go on with, if it can be no
other one's; else a new one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from parrot_backend import protocol as wire
from parrot_backend.core.commands import AnswerWaiter
from parrot_backend.core.discovery.continuity import ConversationBook, Stand
from parrot_backend.core.ids import NodeId, SessionId, variable_id
from parrot_backend.server.engine_requests import DEFAULT_TENANT
from parrot_backend.server.openai.conversation import (
    Conversation,
    conversation_of,
    num_chars,
    renamed,
)
from parrot_backend.server.openai.hints import Hints
from parrot_backend.server.service import Service
from parrot_backend.server.waiting import Inbox


@dataclass(frozen=True, slots=True)
class Placed:
    """Calls of one request that have been submitted.

    Attributes:
        session: Where they are.
        names: Their outputs, in their order.
        owner: Tenant and application.
        conversation: What they go on with, if that is of interest.
    """

    session: SessionId
    names: Sequence[str]
    owner: str
    conversation: Conversation | None


class CallPlacer:
    """Puts the calls of HTTP requests into sessions.

    Args:
        service: Where they are submitted.
        discovers: What they read is found in their texts, and chats that go on with others are put
            beside them. Otherwise calls without a name have a session of their own.
    """

    def __init__(self, service: Service, *, discovers: bool) -> None:
        self._service = service
        self._open = service.open_sessions
        self._discovers = discovers
        self._conversations = ConversationBook()

    def submit(
        self,
        calls: Sequence[wire.CallNode],
        hints: Hints,
        inbox: Inbox,
        *,
        stream: bool,
        tenant: str = DEFAULT_TENANT,
    ) -> Placed:
        """Submit calls; their messages go into the inbox.

        Args:
            calls: Each has one output, at its end; they are given names of the session.
            hints: What is known of them.
            inbox: Where messages go.
            stream: Whether their text is wanted while it is generated.
            tenant: Whose they are.

        Raises:
            ParrotError: They were rejected; nothing has changed.
        """
        owner = f"{len(tenant)}:{tenant}/{hints.app}"
        key = _key_of(owner, hints)
        # Who names one call names all.
        is_unnamed = self._discovers and key is None
        conversation = conversation_of(calls[0]) if is_unnamed else None
        stand = conversation and self._conversations.find(owner, conversation.turns)
        into = self._session_for(key, hints, stand, len(calls), tenant)
        named = self._named(into, calls)
        # Nothing can come after a call that nothing leads to.
        is_alone = key is None and conversation is None
        submit = submit_of(named, hints, stream=stream, session=into, close=is_alone)
        session = self._service.submit(
            submit,
            inbox,
            discovers=self._discovers,
            is_run=hints.is_run,
            tenant=tenant,
            ttl_s=self._open.config.ttl_s,
        )
        chars = sum(map(num_chars, calls))
        if stand is not None:
            stand.use()
        is_shared = key is None and into is not None
        self._open.begin(session, key, len(calls), chars, is_shared=is_shared)
        return Placed(session, [call.name for call in named], owner, conversation)

    def end(self, placed: Placed, answers: Iterable[AnswerWaiter]) -> None:
        """Note that a request is over, and what was answered. To be called once for each."""
        self._open.end(placed.session)
        if placed.conversation is None:
            return
        turns, reply = placed.conversation.turns, placed.conversation.reply
        replies = [reply(answer) for answer in answers if answer.failure is None]
        self._conversations.end(placed.owner, turns, replies, placed.session)

    def _session_for(
        self, key: Hashable, hints: Hints, stand: Stand | None, num_calls: int, tenant: str
    ) -> SessionId | None:
        """Return the session that calls go into; None for a new one."""
        found: SessionId | None = None
        if key is not None:
            found = self._open.named(key)
            if found is None and hints.session is not None:
                found = self._told(SessionId(hints.session), tenant)
        elif stand is not None and stand.session is not None:
            # Who named it since has it for himself.
            found = None if self._open.is_named(stand.session) else stand.session
        return found if found is not None and self._open.takes(found, num_calls) else None

    def _told(self, session: SessionId, tenant: str) -> SessionId | None:
        """Return a session whose id a reply may have told, if it is the tenant's."""
        live = self._service.coordinator.sessions.get(session)
        return None if live is None or live.tenant != tenant else session

    def _named(
        self, session: SessionId | None, calls: Sequence[wire.CallNode]
    ) -> list[wire.CallNode]:
        """Return the calls with names that are free in their session."""
        live = None if session is None else self._service.coordinator.sessions.get(session)
        number = 0 if live is None else len(live.graph.nodes)
        named: list[wire.CallNode] = []
        while len(named) < len(calls):
            number += 1
            name = f"call{number}"
            if live is None or (
                variable_id(live.id, name) not in live.graph.variables
                and NodeId(f"{live.id}.{name}#0") not in live.graph.nodes
            ):
                named.append(renamed(calls[len(named)], name))
        return named


def submit_of(
    calls: Sequence[wire.CallNode],
    hints: Hints,
    *,
    stream: bool,
    session: SessionId | None = None,
    close: bool = True,
) -> wire.SubmitRequest:
    """Return the submit of calls; without a session it opens one."""
    if hints.stage is not None:
        calls = [call.model_copy(update={"stage": hints.stage}) for call in calls]
    return wire.SubmitRequest(
        session_id=session,
        app=hints.app,
        metadata=hints.labels(),
        nodes=tuple(calls),
        outputs=tuple(
            wire.WantedOutput(variable=call.name, criteria=hints.criteria) for call in calls
        ),
        stream=stream,
        close=close,
        on_disconnect="cancel",
    )


def _key_of(owner: str, hints: Hints) -> Hashable:
    """Return the name of a session, None if its caller does not name any."""
    if hints.session is not None:
        return (owner, "session", hints.session)
    return None if hints.user is None else (owner, "user", hints.user)
