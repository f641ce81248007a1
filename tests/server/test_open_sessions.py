"""Which sessions of calls without a graph are open, on the core's own book of sessions."""

from __future__ import annotations

from parrot_backend.core.ids import SessionId
from parrot_backend.core.session_book import SessionBook
from parrot_backend.server.open_sessions import OpenSessions, OpenSessionsConfig
from tests.helpers.builders import make_submission


class World:
    def __init__(self, **limits: int) -> None:
        self.book = SessionBook()
        self.open = OpenSessions(self.book, self.end, OpenSessionsConfig(**limits))

    def end(self, session: SessionId) -> None:
        self.book.forget(self.book.find(session))

    def call(
        self, name: str, num_chars: int = 10, *, key: str | None = None, ends: bool = True
    ) -> None:
        session = SessionId(name)
        if self.book.get(session) is None:
            event = make_submission(session=session)
            self.book.accept(self.book.prepare(event, 0.0), event)
        self.open.begin(session, key, 1, num_chars)
        if ends:
            self.open.end(session)

    @property
    def live(self) -> str:
        return "".join(session.id for session in self.book)


def test_the_idlest_goes_first() -> None:
    world = World(max_sessions=2)
    for name in "abac":
        world.call(name)
    assert world.live == "ac"
    assert len(world.open) == 2


def test_text_counts_too() -> None:
    world = World(max_chars=100)
    world.call("a", 60)
    world.call("b", 40)
    assert world.live == "ab"
    world.call("c", 1)
    assert world.live == "bc"


def test_what_is_at_work_stays() -> None:
    world = World(max_sessions=1)
    world.call("a", ends=False)
    world.call("b", ends=False)
    assert world.live == "ab"
    assert not world.open.end_idlest()
    world.open.end(SessionId("a"))
    assert world.open.end_idlest()
    assert world.live == "b"


def test_what_has_ended_by_itself_is_forgotten_and_makes_no_room() -> None:
    world = World()
    for name in "ab":
        world.call(name, key=name, ends=False)
        world.end(SessionId(name))
    assert not world.open.end_idlest()
    assert len(world.open) == 0
    assert world.open.named("a") is None


def test_a_name_is_of_the_newest() -> None:
    world = World()
    world.call("a", key="run")
    world.call("b", key="run")
    assert world.open.named("run") == "b"
    assert world.open.end_idlest()
    assert world.open.named("run") == "b"


def test_room_for_further_calls() -> None:
    world = World(max_calls=2)
    world.call("a")
    assert world.open.takes(SessionId("a"), 1)
    assert not world.open.takes(SessionId("a"), 2)
    assert not world.open.takes(SessionId("b"), 1)
    world.call("a")
    assert not world.open.takes(SessionId("a"), 1)


def test_a_closed_session_takes_nothing() -> None:
    world = World()
    world.call("a")
    world.book.find(SessionId("a")).is_closed = True
    assert not world.open.takes(SessionId("a"), 1)
