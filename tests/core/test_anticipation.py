"""What sessions that are expected to go on let engines keep, and that all of it is let go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parrot_backend.core import anticipation
from parrot_backend.core.commands import ReleasePrefixes, RetainPrefix, StartRequest
from parrot_backend.core.config import CoreConfig, DiscoveryConfig
from parrot_backend.core.discovery.beginnings import Beginning
from parrot_backend.core.events import CallSpec, EngineInfo, Wanted
from parrot_backend.core.ids import EngineId, NodeId, SessionId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixBoundary
from parrot_backend.core.prompt import Output, Role, Text
from parrot_backend.core.sampling import Sampling
from parrot_backend.errors import ParrotError
from tests.core.audit import audited_driver, foresight_of
from tests.core.hypothesis_settings import examples
from tests.core.test_annotating import _UNSTATED, ask, requests
from tests.core.test_annotating import chat as chat_call
from tests.helpers.builders import SESSION, make_call, make_engine, make_submission, var, write
from tests.helpers.core_driver import CoreDriver, of_type

EARLIER, OTHER = SessionId("earlier"), SessionId("other")
CONFIG = CoreConfig(session_ttl_s=60.0)

#: About 250 tokens by the first estimate.
MANUAL = "The harbour lies in a bay that opens to the north, and ships come in with the tide. " * 12


def keeper(name: str = "e0") -> EngineInfo:
    return make_engine(
        name,
        capacity_tokens=10**7,
        latency_capacity_tokens=10**7,
        max_requests=64,
        keeps_prefixes=True,
        takes_updates=True,
    )


def ask_same(
    driver: CoreDriver, name: str, texts: list[str], session: SessionId = SESSION
) -> Request:
    """Submit a call that may wait for an equal one, of which the result will be the same."""
    plain = chat_call(name, texts, session)
    output = Output(var(name, session), Sampling(max_tokens=500, temperature=0.0))
    event = make_submission(
        CallSpec(name, (*plain.segments[:-1], output)),
        session=session,
        is_new=driver.coordinator.sessions.get(session) is None,
        wanted=[Wanted(var(name, session), _UNSTATED)],
        quiet=True,
    )
    driver.send(replace(event, discovers=True))
    return requests(driver, session)[name]


def reply(number: int, salt: object = "") -> str:
    return (
        f"Answer {number}{salt}: the {'very ' * (number % 7)}old crane of quay {number} is mended."
    )


def agents(number: int, said: list[str]) -> list[str]:
    """A prompt that parts from the others of its run inside of its only message."""
    read = said[-1] if said else "nothing"
    return ["You mend harbours.", f"{MANUAL}What was done before: {read} Do step {number}."]


def chat(number: int, said: list[str]) -> list[str]:
    """A chat: each prompt goes on where the one before ended."""
    turns = [text for at, one in enumerate(said) for text in (one, f"And step {at + 1}?")]
    return [MANUAL, "Do step 0.", *turns]


PROMPTS: dict[str, Callable[[int, list[str]], list[str]]] = {"agents": agents, "chat": chat}


def play(
    driver: CoreDriver, kind: str, num_calls: int, session: SessionId = SESSION, salt: object = ""
) -> list[Request]:
    """Play the first calls of a run, of which the last one goes on."""
    said: list[str] = []
    for number in range(num_calls):
        if number:
            said.append(reply(number, salt))
            driver.finish(f"c{number - 1}", said[-1], session=session)
        ask(driver, f"c{number}", PROMPTS[kind](number, said), session)
    return [requests(driver, session)[f"c{number}"] for number in range(num_calls)]


def learnt(
    kind: str, num_calls: int = 6, config: CoreConfig = CONFIG, *engines: EngineInfo
) -> CoreDriver:
    """Return a core that has seen a run of an application."""
    driver = audited_driver(*(engines or (keeper(),)), config=config)
    play(driver, kind, num_calls, EARLIER, " of old")
    driver.finish(f"c{num_calls - 1}", "Done.", session=EARLIER)
    driver.close(EARLIER)
    assert kept(driver) == set()
    return driver


def kept(driver: CoreDriver) -> set[bytes]:
    return set().union(*driver.kept.values())


def retained(driver: CoreDriver, request: Request) -> tuple[bytes, ...]:
    """Return what the engine was to keep of a request."""
    commands = [command for _, _, said in driver.history for command in said]
    return next(s.retain for s in of_type(commands, StartRequest) if s.node == request.id)


# --- what is kept -----------------------------------------------------------------------------


def test_of_a_first_run_nothing_is_kept() -> None:
    driver = audited_driver(keeper(), config=CONFIG)
    made = play(driver, "agents", 6)
    assert [retained(driver, request) for request in made] == [()] * 6
    assert len(foresight_of(driver.coordinator).anticipation) == 0


def test_of_a_later_run_the_longest_shared_beginning_is_kept() -> None:
    driver = learnt("agents")
    made = play(driver, "agents", 5)
    assert retained(driver, made[0]) == ()
    for number, request in enumerate(made[1:], start=1):
        (key,) = retained(driver, request)
        (beginning,) = (b for b in request.beginnings if b.boundary.hash == key)
        assert request.found is not None
        assert request.found.kept_tokens == beginning.boundary.tokens
        shared = [b for b in request.beginnings if is_shared(request, b, made[:number])]
        assert shared[-1] == beginning
        assert beginning.offset > len(MANUAL)
    assert kept(driver) == {key for request in made for key in retained(driver, request)}


def is_shared(request: Request, beginning: Beginning, earlier: list[Request]) -> bool:
    """Tell whether the last message of an earlier call begins so, too."""
    head = request.parts[beginning.part].text[: beginning.offset]
    return any(one.parts[beginning.part].text.startswith(head) for one in earlier)


def test_of_a_chat_the_end_of_each_prompt_is_kept() -> None:
    driver = learnt("chat")
    made = play(driver, "chat", 5)
    assert retained(driver, made[0]) == ()
    for request in made[1:]:
        assert retained(driver, request)[-1] == request.prefixes[-1].hash
    assert {request.prefixes[-1].hash for request in made[1:]} <= kept(driver)


def test_an_engine_that_holds_it_already_is_told_at_once() -> None:
    driver = learnt("agents")
    play(driver, "agents", 1)
    driver.finish("c0", reply(1))
    driver.lose("e0")
    driver.join(keeper("e1"))
    driver.report("e1", held=held_by(learnt("agents")))
    ask(driver, "c1", agents(1, [reply(1)]))
    (key,) = retained(driver, requests(driver)["c1"])
    assert RetainPrefix(EngineId("e1"), key, None) in driver.history[-1][2]


def held_by(driver: CoreDriver) -> list[PrefixBoundary]:
    """Return all beginnings of a run that has another name for its answers."""
    made = play(driver, "agents", 3)
    return [beginning.boundary for request in made for beginning in request.beginnings]


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, retain_prefixes=False),
        replace(CONFIG, discovery=DiscoveryConfig(learns=False)),
        replace(CONFIG, discovery=DiscoveryConfig(is_on=False)),
    ],
)
def test_switched_off_nothing_is_kept(config: CoreConfig) -> None:
    driver = learnt("agents", 6, config)
    made = play(driver, "agents", 5)
    assert all(retained(driver, request) == () for request in made)
    assert len(foresight_of(driver.coordinator).anticipation) == 0


def test_an_engine_that_keeps_nothing_is_told_nothing() -> None:
    plain = make_engine(capacity_tokens=10**7, latency_capacity_tokens=10**7, max_requests=64)
    driver = learnt("agents", 6, CONFIG, plain)
    play(driver, "agents", 5)
    commands = [command for _, _, said in driver.history for command in said]
    assert not of_type(commands, RetainPrefix)
    assert not of_type(commands, ReleasePrefixes)


def test_prompts_that_share_nothing_let_nothing_be_kept() -> None:
    driver = learnt("agents")
    ask(driver, "one", ["You mend harbours.", f"{MANUAL}Do step 0."])
    other = ask(driver, "two", ["You are another.", f"{MANUAL}Do step 1."])
    assert retained(driver, other) == ()


def test_of_one_session_the_oldest_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anticipation, "_MAX_WANTED", 2)
    driver = learnt("chat", 8)
    made = play(driver, "chat", 7)
    ends = [request.prefixes[-1].hash for request in made]
    assert set(foresight_of(driver.coordinator).anticipation.wanted()) == set(ends[-2:])
    driver.finish("c6", "Done.")
    assert kept(driver) == set(ends[-2:])
    driver.close()
    assert kept(driver) == set()


def test_places_of_a_session_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anticipation, "_MAX_PLACES", 5)
    driver = learnt("chat", 8)
    made = play(driver, "chat", 7)
    (prompts,) = foresight_of(driver.coordinator).anticipation._prompts.values()
    assert len(prompts.places) == 5
    assert retained(driver, made[-1])[-1] == made[-1].prefixes[-1].hash


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_call_whose_equal_one_failed_is_taken_in_once(end: str) -> None:
    driver = learnt("agents")
    ask_same(driver, "c0", agents(0, []), OTHER)
    follower = ask_same(driver, "c0", agents(0, []))
    assert driver.coordinator._progress.optimiser.num_following == 1
    if end == "fail":
        driver.fail("c0", session=OTHER)
    else:
        driver.cancel(session=OTHER)
    assert retained(driver, follower) == ()
    assert follower.found is not None
    assert follower.found.kept_tokens == 0
    assert foresight_of(driver.coordinator).anticipation.wanted() == []


# --- letting go -------------------------------------------------------------------------------


def end_well(driver: CoreDriver) -> None:
    driver.finish("c5", "Done.")


def end_badly(driver: CoreDriver) -> None:
    driver.fail("c5")


def cancel(driver: CoreDriver) -> None:
    driver.cancel("c5")


def close(driver: CoreDriver) -> None:
    driver.close()


@pytest.mark.parametrize("kind", list(PROMPTS))
@pytest.mark.parametrize("end", [end_well, end_badly, cancel, close])
def test_at_the_end_of_a_run_all_is_let_go(kind: str, end: Callable[[CoreDriver], None]) -> None:
    driver = learnt(kind)
    made = play(driver, kind, 6)
    assert made[-1].found is not None
    assert made[-1].found.stages_to_come == 0
    assert kept(driver)
    end(driver)
    assert kept(driver) == set()
    assert len(foresight_of(driver.coordinator).retention) == 0
    assert len(foresight_of(driver.coordinator).anticipation) == 0


def test_a_run_whose_other_calls_go_on_keeps_its_own() -> None:
    driver = learnt("agents")
    play(driver, "agents", 6)
    ask(driver, "beside", agents(5, [reply(5)]))
    before = kept(driver)
    assert before
    end_well(driver)
    assert kept(driver) == before
    driver.finish("beside", "Done, too.")
    assert kept(driver) == set()


def test_an_idle_session_lets_go_when_it_is_forgotten() -> None:
    driver = learnt("agents")
    play(driver, "agents", 4)
    driver.finish("c3", reply(4))
    assert kept(driver)
    driver.run_until(driver.now_s + 100.0)
    assert kept(driver) == set()


def test_what_a_lost_engine_kept_its_successor_keeps() -> None:
    driver = learnt("agents")
    play(driver, "agents", 4)
    before = kept(driver)
    driver.lose("e0")
    assert kept(driver) == set()
    driver.join(keeper("e1"))
    driver.run_until(driver.now_s + 5.0)
    assert driver.running
    assert kept(driver) <= before
    driver.finish("c3", reply(4))
    ask(driver, "c4", agents(4, [reply(4)]))
    assert kept(driver)
    driver.close()
    assert kept(driver) == set()


# --- any order --------------------------------------------------------------------------------

_SESSIONS = (SESSION, OTHER)
_MERGED = ("ask same", "ask same", "fail")
RARE = ["fail", "retry", "cancel", "close", "lose", "join", "wait", "refused", "too long"]
_OPS = st.lists(
    st.tuples(
        st.sampled_from(["ask"] * 3 + ["ask same"] * 2 + ["finish"] * 2 + RARE),
        st.sampled_from(sorted(PROMPTS)),
        st.sampled_from(_SESSIONS),
        st.integers(0, 5),
    ),
    max_size=40,
)


class Story:
    """Plays what happens, and what was said in each session."""

    def __init__(self, driver: CoreDriver) -> None:
        self.driver = driver
        self.said: dict[SessionId, list[str]] = {session: [] for session in _SESSIONS}
        self.num_asked = 0
        self.num_engines = 1

    def step(self, op: str, kind: str, session: SessionId, number: int) -> None:
        driver, said = self.driver, self.said[session]
        if op in ("ask", "ask same"):
            prompt = PROMPTS[kind](number, said if kind == "chat" else said[-1:])
            submit = ask if op == "ask" else ask_same
            submit(driver, f"n{self.num_asked}", prompt, session)
            self.num_asked += 1
        elif op in ("finish", "fail", "retry"):
            self.end(op, session, number)
        elif op == "cancel" and driver.coordinator.sessions.get(session):
            driver.cancel(session=session)
        elif op == "close" and driver.coordinator.sessions.get(session):
            driver.close(session)
            said.clear()
        elif op == "lose":
            for name in list(driver.live_engines)[number % 2 :]:
                driver.lose(name)
        elif op == "join":
            driver.join(keeper(f"e{self.num_engines}"))
            self.num_engines += 1
        elif op == "wait":
            driver.run_until(driver.now_s + (1.0, 5.0, 70.0)[number % 3])
        elif op in ("refused", "too long"):
            self.refuse(op, session)

    def end(self, op: str, session: SessionId, number: int) -> None:
        running = [a for a in self.driver.running if self.driver.request_of(a).session == session]
        if not running:
            return
        output = self.driver.request_of(running[number % len(running)]).output
        name = output.partition(".")[2]
        if op == "finish":
            self.said[session].append(reply(len(self.said[session])))
            self.driver.finish(name, self.said[session][-1], session=session)
        else:
            self.driver.fail(name, is_retryable=op == "retry", session=session)

    def refuse(self, op: str, session: SessionId) -> None:
        name = f"n{self.num_asked}"
        self.num_asked += 1
        if op == "too long":
            ask(self.driver, name, [MANUAL, "x" * (8 * 2**20)], session)
            return
        segments = (Role("user"), Text(MANUAL), Role("assistant"), write(name, session=session))
        event = make_submission(
            make_call(name, *segments, model="unknown"),
            session=session,
            is_new=self.driver.coordinator.sessions.get(session) is None,
        )
        with pytest.raises(ParrotError):
            self.driver.send(replace(event, discovers=True))


@examples(120)
@example(
    "agents",
    64,
    [(op, "agents", at, 0) for op, at in zip(_MERGED, (OTHER, SESSION, OTHER), strict=True)],
)
@given(st.sampled_from(sorted(PROMPTS)), st.sampled_from([1, 64]), _OPS)
def test_all_that_was_kept_is_let_go_whatever_happens(
    kind: str, max_wanted: int, ops: list[tuple[str, str, SessionId, int]]
) -> None:
    story = Story(learnt(kind))
    taken_in: list[NodeId] = []
    take_in = anticipation._Prompts.take_in

    def noted(
        prompts: anticipation._Prompts, request: Request, chain: Sequence[PrefixBoundary]
    ) -> PrefixBoundary | None:
        taken_in.append(request.id)
        return take_in(prompts, request, chain)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(anticipation, "_MAX_WANTED", max_wanted)
        patched.setattr(anticipation._Prompts, "take_in", noted)
        for op in ops:
            story.step(*op)
    assert len(taken_in) == len(set(taken_in))
    driver = story.driver
    for session in [session.id for session in driver.coordinator.sessions]:
        driver.close(session)
    foresight = foresight_of(driver.coordinator)
    assert kept(driver) == set()
    assert (len(foresight.retention), len(foresight.anticipation)) == (0, 0)
    assert foresight.retention._wanted_by == {}
    assert foresight.retention._kept_on == {}
