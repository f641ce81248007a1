"""Each request that is taken in ends once, in one way, and is told to have ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from parrot_backend.core.account import CallEnd, Ending
from parrot_backend.core.commands import Command
from parrot_backend.core.config import CoreConfig, OptimiserConfig
from parrot_backend.core.events import CallSpec, EngineReported, Event
from parrot_backend.core.ids import EngineId, NodeId, SessionId
from parrot_backend.core.prompt import Output, Text
from parrot_backend.core.sampling import Sampling
from tests.core.audit import audited_driver
from tests.core.chaos import Chaos
from tests.helpers.builders import make_engine, make_steps, make_wanted, var
from tests.helpers.core_driver import CoreDriver

FIRST, SECOND = SessionId("s"), SessionId("t")


def greedy(name: str, session: SessionId = FIRST) -> CallSpec:
    sampling = Sampling(max_tokens=16, temperature=0.0)
    return CallSpec(name, (Text("say a word"), Output(var(name, session), sampling)))


class Book:
    """Notes what the core tells of ends."""

    def __init__(self, driver: CoreDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.endings: list[Ending] = []
        send = driver.send

        def noting(event: Event, after_s: float = 0.0) -> list[Command]:
            commands = send(event, after_s)
            self.endings += driver.coordinator.endings
            return commands

        monkeypatch.setattr(driver, "send", noting)


def run(driver: CoreDriver) -> None:
    driver.submit(*make_steps("a", "b: a"))
    driver.finish("a")
    driver.finish("b")


def merge(driver: CoreDriver) -> None:
    driver.submit(greedy("a"))
    driver.submit(greedy("b", SECOND), session=SECOND, quiet=True)
    driver.finish("a")


def cache(driver: CoreDriver) -> None:
    driver.submit(greedy("a"))
    driver.finish("a")
    driver.submit(greedy("b", SECOND), session=SECOND)


def fail(driver: CoreDriver) -> None:
    driver.submit(*make_steps("a", "b: a"))
    driver.fail("a", is_retryable=False)


def cancel(driver: CoreDriver) -> None:
    driver.submit(*make_steps("a", "b: a"))
    driver.cancel()


def prune(driver: CoreDriver) -> None:
    driver.submit(*make_steps("a", "b"), close=True, wanted=[make_wanted("a", waiter="w")])
    driver.finish("a")


WAYS: dict[str, tuple[Callable[[CoreDriver], None], list[tuple[str, CallEnd, str | None]]]] = {
    "run": (run, [("s.a#0", CallEnd.FINISHED, None), ("s.b#0", CallEnd.FINISHED, None)]),
    "merged": (merge, [("s.a#0", CallEnd.FINISHED, None), ("t.b#0", CallEnd.MERGED, "s.a#0")]),
    "cached": (cache, [("s.a#0", CallEnd.FINISHED, None), ("t.b#0", CallEnd.CACHED, None)]),
    "failed": (fail, [("s.a#0", CallEnd.FAILED, None), ("s.b#0", CallEnd.FAILED, None)]),
    "cancelled": (cancel, [("s.a#0", CallEnd.CANCELLED, None), ("s.b#0", CallEnd.CANCELLED, None)]),
    "pruned": (prune, [("s.b#0", CallEnd.PRUNED, None), ("s.a#0", CallEnd.FINISHED, None)]),
}


@pytest.mark.parametrize(("way", "expected"), WAYS.values(), ids=WAYS.keys())
def test_how_calls_end(
    way: Callable[[CoreDriver], None],
    expected: list[tuple[str, CallEnd, str | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = CoreConfig(optimiser=OptimiserConfig(result_cache_bytes=2**20))
    driver = audited_driver(make_engine(), config=config)
    book = Book(driver, monkeypatch)

    way(driver)

    told = [(str(e.request.id), e.how, e.equal and str(e.equal)) for e in book.endings]
    assert told == expected
    assert all(e.output.id == e.request.output and e.output.is_settled for e in book.endings)
    assert driver.coordinator.num_begun_calls == len(expected)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_call_ends_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chaos = Chaos(seed)
    book = Book(chaos.driver, monkeypatch)
    numbers = [(seed * 7919 + step * 104_729) % 2**31 for step in range(60)]
    chaos.play([(n % 23, n // 23 % 97, n // 2231 % 89, n // 199_000 % 83) for n in numbers])
    core = chaos.driver.coordinator

    assert core.num_begun_calls - len(book.endings) == core.num_unfinished_calls
    chaos.end()

    ended: list[NodeId] = [e.request.id for e in book.endings]
    assert len(set(ended)) == len(ended) == core.num_begun_calls > 0


def test_an_event_that_ends_nothing_tells_of_no_end() -> None:
    driver = audited_driver(make_engine())
    driver.submit(*make_steps("a"))
    driver.finish("a")
    assert len(driver.coordinator.endings) == 1
    driver.send(EngineReported(EngineId("e0")))
    assert driver.coordinator.endings == []
