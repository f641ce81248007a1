"""Which session a call goes on with, when its client does not say.

A chat goes on when its messages begin with all messages of an earlier call, and then the reply to
it. Both are hashed message by message, so that each call costs time linear in its messages and a
few dozen bytes to remember.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from parrot_backend.core.ids import SessionId

_DIGEST_BYTES = 16

#: Calls that are remembered in all, about 300 bytes each.
MAX_CALLS = 65_536

#: Sessions that stand at exactly the same place and are told apart.
_MAX_ALIKE = 16


class Turn(NamedTuple):
    """One message.

    Attributes:
        role: Who speaks.
        text: What is said; white space at its ends is not looked at, clients strip it.
        details: What else makes the message what it is, such as its tool calls.
    """

    role: str
    text: str
    details: str = ""


class ConversationBook:
    """Where the conversations of all tenants stand.

    Several sessions can stand at the same place: runs that said and heard the same. A call then
    goes to the newest of them that nothing has gone on with yet, else to the newest one; what the
    model reads is the same with either.

    Args:
        max_calls: How many calls are remembered; the least recently ended or continued go first.
    """

    def __init__(self, max_calls: int = MAX_CALLS) -> None:
        self._max_calls = max_calls
        self._sessions: OrderedDict[bytes, list[SessionId]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def end(self, tenant: str, turns: Sequence[Turn], reply: Turn, session: SessionId) -> None:
        """Take in a call that has ended, and its session.

        Args:
            tenant: Whose call it is; nothing goes on with another tenant's.
            turns: Its messages.
            reply: What was answered, as the client will repeat it.
            session: Where it belongs.
        """
        place = _places(tenant, [*turns, reply])[-1]
        alike = self._sessions.setdefault(place, [])
        if session in alike:
            alike.remove(session)
        alike.append(session)
        del alike[:-_MAX_ALIKE]
        self._sessions.move_to_end(place)
        if len(self._sessions) > self._max_calls:
            self._sessions.popitem(last=False)

    def continued_by(self, tenant: str, turns: Sequence[Turn]) -> SessionId | None:
        """Return the session that a new call goes on with: the one that shares most with it."""
        for place in reversed(_places(tenant, turns)[:-1]):
            alike = self._sessions.get(place)
            if alike is not None:
                self._sessions.move_to_end(place)
                return alike.pop() if len(alike) > 1 else alike[0]
        return None


def _places(tenant: str, turns: Sequence[Turn]) -> list[bytes]:
    """Return a hash for each message, of all up to it."""
    before = _digest(tenant.encode("utf-8", "surrogatepass"))
    places: list[bytes] = []
    for turn in turns:
        texts = (turn.role, turn.text.strip(), turn.details)
        parts = (_digest(text.encode("utf-8", "surrogatepass")) for text in texts)
        before = _digest(before + b"".join(parts))
        places.append(before)
    return places


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()
