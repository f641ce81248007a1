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
    assert world.live == "b"
    assert not world.open.end_idlest()


def test_any_number_at_work_do_not_hide_an_idle_one() -> None:
    world = World(max_sessions=200, max_chars=10_000)
    for number in range(200):
        world.call(f"w{number}.", ends=False)
    assert not world.open.end_idlest()
    world.call("i.")
    assert "i." not in world.live
    assert len(world.open) == 200
    world.open.end(SessionId("w150."))
    assert world.open.end_idlest()
    assert "w150." not in world.live


def test_bounds_hold_as_far_as_sessions_are_idle() -> None:
    world = World(max_sessions=100)
    for number in range(90):
        world.call(f"w{number}.", ends=False)
    for number in range(50):
        world.call(f"i{number}.")
        assert len(world.open) == min(91 + number, 100)
    assert world.live.endswith("".join(f"i{number}." for number in range(40, 50)))


def test_what_goes_to_work_again_is_not_idle() -> None:
    world = World(max_sessions=2)
    world.call("a")
    world.call("b")
    world.call("a", ends=False)
    world.call("c")
    assert world.live == "ac"
    world.call("a", ends=False)
    world.open.end(SessionId("a"))
    world.call("d")
    assert world.live == "ad"


def test_what_has_ended_by_itself_is_forgotten_and_makes_no_room() -> None:
    world = World()
    for name in "ab":
        world.call(name, key=name)
        world.end(SessionId(name))
    assert not world.open.end_idlest()
    assert len(world.open) == 0
    assert world.open.named("a") is None


def test_what_ended_at_work_is_forgotten_with_its_last_request() -> None:
    world = World()
    world.call("a", key="run", ends=False)
    world.end(SessionId("a"))
    world.open.end(SessionId("a"))
    assert len(world.open) == 0
    assert world.open.named("run") is None


def test_a_shared_session_ends_with_its_last_request() -> None:
    world = World()
    a = SessionId("a")
    world.call("a", ends=False)
    assert not world.open.end_after_work(a)  # nobody else is in it
    world.open.begin(a, None, 1, 10, is_shared=True)
    assert world.open.is_shared(a)
    assert world.open.end_after_work(a)
    world.open.end(a)
    assert world.live == "a"
    world.open.end(a)
    assert world.live == ""
    assert len(world.open) == 0


def test_a_shared_session_that_is_idle_may_end_at_once() -> None:
    world = World()
    world.open.begin(SessionId("a"), None, 1, 10, is_shared=True)
    world.open.end(SessionId("a"))
    assert not world.open.end_after_work(SessionId("a"))


def test_a_name_stays_known() -> None:
    world = World()
    world.call("a", key="run")
    world.call("a")
    world.call("b")
    assert world.open.is_named(SessionId("a"))
    assert not world.open.is_named(SessionId("b"))


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
