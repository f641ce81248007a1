"""Sessions that hold all that a user does, for clients that send call after call."""

from __future__ import annotations

from hashlib import blake2b

from parrot_backend.core.ids import SessionId
from parrot_backend.sim.jobs import ClientSession
from parrot_backend.sim.program import DEFAULT_TENANT

#: A session that never ends would hold every call that its user ever made. So many are enough for
#: a policy that goes by sessions; the live server begins another after about as many.
_MAX_CALLS = 1000


class UserSessions:
    """The present session of each user who has a live job."""

    def __init__(self) -> None:
        self._present: dict[SessionId, ClientSession] = {}

    def of(self, user: str, tenant: str) -> ClientSession:
        """Return the session for another job of a tenant's user.

        It has the same id again after a pause, so that policies that go by it find the same
        engine. While jobs overlap for ever, another follows when it has had enough calls.
        """
        key = b"" if tenant == DEFAULT_TENANT else blake2b(_bytes_of(tenant)).digest()
        base = f"u{blake2b(_bytes_of(user), digest_size=8, key=key).hexdigest()}"
        number = 0
        while True:
            session_id = SessionId(f"{base}-{number}" if number else base)
            session = self._present.get(session_id)
            if session is None:
                session = ClientSession(session_id, is_run=False)
                self._present[session_id] = session
                return session
            if session.num_calls < _MAX_CALLS:
                session.num_jobs += 1
                return session
            number += 1

    def is_done(self, session: ClientSession) -> bool:
        """Tell whether no job uses a session any more; then it is forgotten."""
        if session.num_jobs:
            return False
        self._present.pop(session.id, None)
        return True


def _bytes_of(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
