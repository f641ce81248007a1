"""Which session a call goes on with, when its client does not say.

A chat goes on when its messages begin with all messages of an earlier call, and then the reply to
it. Both are hashed message by message, so that each call costs time linear in its messages and a
few dozen bytes to remember.

Words do not tell who speaks. So a session is found by them only where they can be nobody else's:
at a place that one call has come to, and that nothing has gone on from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from parrot_backend.core.ids import SessionId

_DIGEST_BYTES = 16

#: Places that are remembered in all, about 300 bytes each.
MAX_PLACES = 65_536


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


@dataclass(slots=True)
class Stand:
    """Where calls of one request have ended: after each of their replies.

    Attributes:
        session: Who may go on from there; None if nobody may.
    """

    session: SessionId | None

    def use(self) -> None:
        """Let nobody else go on from here: all that follows is a branch."""
        self.session = None


class ConversationBook:
    """Where the conversations of all tenants stand.

    A place that a second request comes to, whoever sent it, is of neither: who goes on from there
    could be either.

    Args:
        max_places: How many are remembered; the least recently ended or continued go first.
    """

    def __init__(self, max_places: int = MAX_PLACES) -> None:
        self._max_places = max_places
        self._stands: OrderedDict[bytes, Stand] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stands)

    def end(
        self, tenant: str, turns: Sequence[Turn], replies: Iterable[Turn], session: SessionId
    ) -> None:
        """Take in a request that has ended, and its session.

        Args:
            tenant: Whose it is; nothing goes on with another tenant's.
            turns: Its messages.
            replies: What was answered, as the client will repeat one of them.
            session: Where it belongs.
        """
        stand = Stand(session)
        for place in {_places(tenant, [*turns, reply])[-1] for reply in replies}:
            known = place in self._stands
            self._stands[place] = Stand(None) if known else stand
            self._stands.move_to_end(place)
            if len(self._stands) > self._max_places:
                self._stands.popitem(last=False)

    def find(self, tenant: str, turns: Sequence[Turn]) -> Stand | None:
        """Return where a new request goes on: the place that shares most with it, if any is known.

        Places before that one do not count, even if nobody may go on from it.
        """
        for place in reversed(_places(tenant, turns)[:-1]):
            stand = self._stands.get(place)
            if stand is not None:
                self._stands.move_to_end(place)
                return stand
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
