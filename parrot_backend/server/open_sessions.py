"""Sessions that calls without a graph go into: which are open, and which has to go first.

A program that calls one by one never says that it has come to its end. Its session stays open for
further calls until it is idle for too long, is full, or is in the way of newer ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from parrot_backend.core.ids import SessionId
from parrot_backend.core.session_book import SessionBook

#: Calls of one session: each costs memory as long as the session is open.
MAX_CALLS = 1000

#: Characters of the prompts of one session.
MAX_CHARS = 2**24


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
    """One session.

    Attributes:
        key: Its name, if it has one.
        num_unfinished: Requests that wait for calls of it.
        is_shared: Some request was put into it for its words alone, so it is nobody's.
        is_ending: It ends with its last request.
    """

    key: Hashable
    num_calls: int = 0
    num_chars: int = 0
    num_unfinished: int = 0
    is_shared: bool = False
    is_ending: bool = False


class OpenSessions:
    """What is open, at work or idle.

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
        self._at_work: dict[SessionId, _Open] = {}
        self._idle: OrderedDict[SessionId, _Open] = OrderedDict()  # the idlest first
        self._named: dict[Hashable, SessionId] = {}
        self._num_chars = 0

    def __len__(self) -> int:
        return len(self._at_work) + len(self._idle)

    def named(self, key: Hashable) -> SessionId | None:
        """Return the session with a name, if there is one; it may have ended since."""
        return self._named.get(key)

    def is_named(self, session: SessionId) -> bool:
        """Tell whether calls have come into a session by a name."""
        held = self._held(session)
        return held is not None and held.key is not None

    def is_shared(self, session: SessionId) -> bool:
        """Tell whether a request was put into a session for its words alone.

        Its caller did not name the session, so others than he may know it.
        """
        held = self._held(session)
        return held is not None and held.is_shared

    def takes(self, session: SessionId, num_calls: int) -> bool:
        """Tell whether a session lives and has room for further calls."""
        live = self._sessions.get(session)
        if live is None or live.is_closed:
            return False
        held = self._held(session)
        if held is None:
            return len(live.graph.nodes) + num_calls <= self.config.max_calls
        has_room = held.num_calls + num_calls <= self.config.max_calls
        return has_room and held.num_chars < MAX_CHARS

    def begin(
        self,
        session: SessionId,
        key: Hashable,
        num_calls: int,
        num_chars: int,
        *,
        is_shared: bool = False,
    ) -> None:
        """Note that calls went into a session, and let the idlest go if that is too much.

        Args:
            session: The session.
            key: Its name, if it has one; another session of that name is not found any more.
            num_calls: How many calls.
            num_chars: The characters of their prompts.
            is_shared: They were put there for their words alone.
        """
        held = self._idle.pop(session, None) or self._at_work.get(session) or _Open(key)
        self._at_work[session] = held
        held.num_calls += num_calls
        held.num_chars += num_chars
        held.num_unfinished += 1
        held.is_shared |= is_shared
        self._num_chars += num_chars
        if key is not None:
            self._named[key] = session
            held.key = key
        self._hold_bounds()

    def end(self, session: SessionId) -> None:
        """Note that the calls of one ``begin`` have ended."""
        held = self._at_work.get(session)
        if held is None:
            return
        held.num_unfinished -= 1
        if held.num_unfinished:
            return
        self._idle[session] = self._at_work.pop(session)
        if held.is_ending or self._sessions.get(session) is None:
            self._end_idle(session)
        self._hold_bounds()

    def end_after_work(self, session: SessionId) -> bool:
        """Let a shared session end with its last request, if any waits.

        Returns:
            False if none waits or the session is not shared: it may end at once.
        """
        held = self._at_work.get(session)
        if held is None or not held.is_shared:
            return False
        held.is_ending = True
        return True

    def end_idlest(self) -> bool:
        """End the session without unfinished calls that was not heard of for the longest.

        Those that have ended by themselves are forgotten on the way.

        Returns:
            False if there is none.
        """
        while self._idle:
            if self._end_idle(next(iter(self._idle))):
                return True
        return False

    def _end_idle(self, session: SessionId) -> bool:
        """Forget a session that is idle; return whether it was alive, and has been ended."""
        held = self._idle.pop(session)
        self._num_chars -= held.num_chars
        if self._named.get(held.key) == session:
            del self._named[held.key]
        is_live = self._sessions.get(session) is not None
        if is_live:
            self._end(session)
        return is_live

    def _held(self, session: SessionId) -> _Open | None:
        return self._at_work.get(session) or self._idle.get(session)

    def _hold_bounds(self) -> None:
        while self._is_too_much() and self.end_idlest():
            pass

    def _is_too_much(self) -> bool:
        config = self.config
        return len(self) > config.max_sessions or self._num_chars > config.max_chars
