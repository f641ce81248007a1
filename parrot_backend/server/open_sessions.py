"""Sessions that calls without a graph go into: which are open, and which has to go first.

A program that calls one by one never says that it has come to its end. Its session stays open for
further calls until it is idle for too long, is full, or is in the way of newer ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import islice

from parrot_backend.core.ids import SessionId
from parrot_backend.core.session_book import SessionBook

#: Calls of one session: each costs memory as long as the session is open.
MAX_CALLS = 1000

#: Characters of the prompts of one session.
MAX_CHARS = 2**24

#: Sessions that are looked at to find one without unfinished calls.
_MAX_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class OpenSessionsConfig:
    """Limits.

    Attributes:
        ttl_s: A session that is idle for so long ends.
        max_calls: Calls of one session; the next one opens another.
        max_sessions: How many are open at once.
        max_chars: Characters of the prompts of all of them together.
    """

    ttl_s: float = 300.0
    max_calls: int = MAX_CALLS
    max_sessions: int = 16_384
    max_chars: int = 2**27


@dataclass(slots=True)
class _Open:
    key: Hashable
    num_calls: int = 0
    num_chars: int = 0
    num_unfinished: int = 0


class OpenSessions:
    """What is open, the idlest first.

    Args:
        sessions: All sessions of the core; those that have ended since are noticed there.
        end: Ends a session.
        config: Limits.
    """

    def __init__(
        self, sessions: SessionBook, end: Callable[[SessionId], None], config: OpenSessionsConfig
    ) -> None:
        self._sessions = sessions
        self._end = end
        self.config = config
        self._open: OrderedDict[SessionId, _Open] = OrderedDict()
        self._named: dict[Hashable, SessionId] = {}
        self._num_chars = 0

    def __len__(self) -> int:
        return len(self._open)

    def named(self, key: Hashable) -> SessionId | None:
        """Return the session with a name, if there is one; it may have ended since."""
        return self._named.get(key)

    def takes(self, session: SessionId, num_calls: int) -> bool:
        """Tell whether a session lives and has room for further calls."""
        live = self._sessions.get(session)
        if live is None or live.is_closed:
            return False
        held = self._open.get(session)
        if held is None:
            return len(live.graph.nodes) + num_calls <= self.config.max_calls
        has_room = held.num_calls + num_calls <= self.config.max_calls
        return has_room and held.num_chars < MAX_CHARS

    def begin(self, session: SessionId, key: Hashable, num_calls: int, num_chars: int) -> None:
        """Note that calls went into a session, and let the idlest go if that is too much.

        Args:
            session: The session.
            key: Its name, if it has one; another session of that name is not found any more.
            num_calls: How many calls.
            num_chars: The characters of their prompts.
        """
        held = self._open.setdefault(session, _Open(key))
        held.num_calls += num_calls
        held.num_chars += num_chars
        held.num_unfinished += 1
        self._num_chars += num_chars
        if key is not None:
            self._named[key] = session
            held.key = key
        while self._is_too_much() and self.end_idlest():
            pass

    def end(self, session: SessionId) -> None:
        """Note that the calls of one ``begin`` have ended."""
        held = self._open.get(session)
        if held is not None:
            held.num_unfinished -= 1
            self._open.move_to_end(session)

    def end_idlest(self) -> bool:
        """End the session without unfinished calls that was not heard of for the longest.

        Those that have ended by themselves are forgotten on the way.

        Returns:
            False if there is none.
        """
        for session, held in list(islice(self._open.items(), _MAX_LOOKED_AT)):
            is_live = self._sessions.get(session) is not None
            if is_live and held.num_unfinished:
                continue
            self._forget(session, held)
            if is_live:
                self._end(session)
                return True
        return False

    def _is_too_much(self) -> bool:
        config = self.config
        return len(self._open) > config.max_sessions or self._num_chars > config.max_chars

    def _forget(self, session: SessionId, held: _Open) -> None:
        del self._open[session]
        self._num_chars -= held.num_chars
        if self._named.get(held.key) == session:
            del self._named[held.key]
