"""Fills by themselves: which are begun, where, which are put off, and how they end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from parrot_backend.core.commands import AbortRequest, Command, FillPrefix
from parrot_backend.core.config import EarlyFillConfig
from parrot_backend.core.early_fill import EarlyFill, FillCandidate
from parrot_backend.core.engine_state import EngineState
from parrot_backend.core.ids import AttemptId, EngineId
from parrot_backend.core.nodes import NodeState, Request
from parrot_backend.core.prefix import PrefixChain, PrefixIndex, PrefixIndexConfig
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.resolution import PLACEHOLDER
from tests.helpers.builders import make_chain, make_engine_state, make_request

A, B = EngineId("a"), EngineId("b")
KNOWN = PromptPart(PartKind.CONSTANT, "known")


class World:
    """Fills, the engines they may go to, and what was said since it was last asked."""

    def __init__(
        self, *engines: EngineState, config: EarlyFillConfig | None = None, kept: Sequence[str] = ()
    ) -> None:
        self.engines = list(engines) or [make_engine_state("a")]
        self.index = PrefixIndex(PrefixIndexConfig(min_tokens=32))
        for order, engine in enumerate(self.engines):
            engine.order = order
            self.index.add_engine(engine.id)
        self._kept = [key.encode() for key in kept]
        self._said: list[Command] = []
        self.fills = EarlyFill(
            config or EarlyFillConfig(max_per_engine=1), self.index, self._keep, self._said.append
        )

    def _keep(self, chain: PrefixChain, engine: EngineId, num_readers: int) -> tuple[bytes, ...]:
        assert num_readers == 0
        return tuple(boundary.hash for boundary in chain if boundary.hash in self._kept)

    def consider(self, *names: str, near: EngineId | None = None) -> list[str]:
        """Consider what is wanted, one name after the other; return what was begun."""
        for name in names:
            candidate = make_candidate(name, near=near)
            if self.fills.is_wanted(candidate.request, candidate.chain):
                self.fills.consider(candidate)
            self.fills.resume(self.engines)
        return self.begun()

    def end(self, attempt: str, *, is_complete: bool = True) -> bool:
        is_fill = self.fills.ended(AttemptId(attempt), is_complete=is_complete)
        self.fills.resume(self.engines)
        return is_fill

    def begun(self) -> list[str]:
        return [f"{c.attempt} on {c.engine}" for c in self.said() if isinstance(c, FillPrefix)]

    def said(self) -> list[Command]:
        said = list(self._said)
        self._said.clear()
        return said


def make_candidate(
    name: str, model: str | None = None, *, tokens: int = 100, near: EngineId | None = None
) -> FillCandidate:
    chain = make_chain((name, tokens))
    return FillCandidate(waiting(name, model), (KNOWN, PLACEHOLDER), 1, chain, near)


def waiting(name: str, model: str | None = None) -> Request:
    request = make_request(name, model=model)
    request.state = NodeState.WAITING
    return request


# --- which are wanted --------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "expected"), [(63, False), (64, True)])
def test_short_prefix_is_not_worth_a_fill(tokens: int, expected: bool) -> None:
    world = World(config=EarlyFillConfig(min_tokens=64))
    assert world.fills.is_wanted(waiting("r"), make_chain(("p", 40), ("r", tokens))) is expected


@pytest.mark.parametrize("state", list(NodeState))
def test_only_what_waits_is_filled(state: NodeState) -> None:
    world = World()
    request = waiting("r")
    request.state = state
    is_waiting = state is NodeState.WAITING
    assert world.fills.is_wanted(request, make_chain(("r", 100))) is is_waiting


def test_nothing_is_filled_when_it_is_switched_off() -> None:
    world = World(config=EarlyFillConfig(is_on=False))
    assert world.consider("r") == []


@pytest.mark.parametrize(
    ("held", "expected"),
    [(("p", 40), True), (("pq", 100), False), (("pqr", 200), True)],
    ids=["a part of it", "all of it", "something longer that is not known to begin so"],
)
def test_what_an_engine_holds_is_not_filled(held: tuple[str, int], expected: bool) -> None:
    world = World()
    world.index.record(A, make_chain(held))
    assert world.fills.is_wanted(waiting("r"), make_chain(("p", 40), ("pq", 100))) is expected


def test_request_is_filled_once_at_a_time() -> None:
    world = World(config=EarlyFillConfig(max_per_engine=9))
    world.consider("r")
    assert not world.fills.is_wanted(waiting("r"), make_chain(("r", 100), ("more", 200)))


def test_equal_prefix_is_filled_once() -> None:
    world = World(config=EarlyFillConfig(max_per_engine=9))
    world.consider("r")
    assert not world.fills.is_wanted(waiting("s"), make_candidate("r").chain)


def test_equal_prefix_is_filled_once_whatever_the_engine_reports_meanwhile() -> None:
    world = World(config=EarlyFillConfig(max_per_engine=9))
    world.consider("r")
    world.index.report_all(A, [])
    assert not world.fills.is_wanted(waiting("s"), make_candidate("r").chain)


def test_equal_prefix_is_filled_once_even_if_it_is_too_short_for_the_index() -> None:
    world = World(config=EarlyFillConfig(min_tokens=16, max_per_engine=9))
    chain = make_chain(("p", 20))
    world.fills.consider(FillCandidate(waiting("r"), (KNOWN, PLACEHOLDER), 1, chain))
    world.fills.resume(world.engines)
    assert not world.fills.is_wanted(waiting("s"), chain)


# --- where -------------------------------------------------------------------------------------


def test_fill_says_everything_an_engine_needs() -> None:
    world = World(kept=("r",))
    candidate = make_candidate("r", model="m")
    world.fills.consider(candidate)
    assert world.said() == []
    world.fills.resume(world.engines)
    request = candidate.request
    assert world.said() == [
        FillPrefix(
            engine=A,
            attempt=AttemptId("r~fill0"),
            session=request.session,
            tenant="default",
            model="m",
            parts=(KNOWN, PLACEHOLDER),
            num_known=1,
            prefixes=candidate.chain,
            retain=(b"r",),
        )
    ]


def test_engine_of_a_fill_counts_as_one_that_holds_the_prefix() -> None:
    world = World()
    world.consider("r")
    assert world.index.engines_with(make_candidate("r").chain) == (A,)


@pytest.mark.parametrize(
    ("used", "near", "expected"),
    [
        ((0, 0), None, "a"),
        ((9, 0), None, "b"),
        ((0, 9), None, "a"),
        ((0, 9), "b", "b"),
        ((9, 0), "a", "a"),
        ((9, 0), "elsewhere", "b"),
    ],
)
def test_fill_goes_near_the_producer_or_where_least_is_used(
    used: tuple[int, int], near: str | None, expected: str
) -> None:
    world = World(make_engine_state("a"), make_engine_state("b"))
    for engine, tokens in zip(world.engines, used, strict=True):
        engine.used_tokens = tokens
    begun = world.consider("r", near=None if near is None else EngineId(near))
    assert begun == [f"r~fill0 on {expected}"]


def test_near_engine_that_has_enough_is_passed_over() -> None:
    world = World(make_engine_state("a"), make_engine_state("b"))
    assert world.consider("r", "s", near=A) == ["r~fill0 on a", "s~fill1 on b"]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_engine_has_so_many_fills_at_once(limit: int) -> None:
    world = World(config=EarlyFillConfig(max_per_engine=limit))
    assert len(world.consider(*"rstuvw")) == limit
    assert len(world.fills) == limit


def test_without_an_engine_it_is_put_off() -> None:
    world = World()
    world.fills.consider(make_candidate("r"))
    world.fills.resume([])
    assert world.begun() == []
    world.fills.resume(world.engines)
    assert world.begun() == ["r~fill0 on a"]


# --- once more ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "expected"), [(100, False), (149, False), (150, True)])
@pytest.mark.parametrize("is_complete", [True, False])
def test_request_is_filled_again_when_its_prompt_has_grown(
    tokens: int, expected: bool, is_complete: bool
) -> None:
    world = World()
    world.consider("r")
    world.end("r~fill0", is_complete=is_complete)
    grown = make_chain(("r", 100), ("grown", tokens))
    assert world.fills.is_wanted(waiting("r"), grown) is expected


def test_growth_is_that_of_the_request_itself() -> None:
    world = World()
    world.consider("r")
    world.end("r~fill0")
    assert world.consider("s") == ["s~fill1 on a"]


def test_request_that_was_stopped_counts_as_never_filled() -> None:
    world = World()
    world.consider("r")
    world.fills.stop(waiting("r").id)
    assert world.fills.is_wanted(waiting("r"), make_chain(("other", 100)))


# --- how they end ------------------------------------------------------------------------------


def test_what_was_put_off_is_begun_when_a_fill_ends() -> None:
    world = World()
    assert world.consider("r", "s", "t") == ["r~fill0 on a"]
    assert world.end("r~fill0")
    assert world.begun() == ["s~fill1 on a"]
    assert world.end("s~fill1")
    assert world.begun() == ["t~fill2 on a"]


def test_unknown_attempt_is_no_fill() -> None:
    world = World()
    world.consider("r", "s")
    assert not world.end("r~1")
    assert world.begun() == []


def test_fill_ends_once() -> None:
    world = World()
    world.consider("r", "s", "t")
    world.end("r~fill0")
    assert not world.end("r~fill0")
    assert len(world.fills) == 1


def test_what_is_not_wanted_any_more_is_not_taken_up() -> None:
    world = World()
    world.consider("r")
    held, ready, last = make_candidate("held"), make_candidate("ready"), make_candidate("last")
    for candidate in (held, ready, last):
        world.fills.consider(candidate)
    world.index.record(A, held.chain)
    ready.request.state = NodeState.READY
    world.said()
    world.end("r~fill0")
    assert world.begun() == ["last~fill1 on a"]


def test_what_was_put_off_goes_to_an_engine_of_its_model() -> None:
    world = World(make_engine_state("a", models=("m",)), make_engine_state("b", models=("n",)))
    for name in ("r", "s"):
        world.fills.consider(make_candidate(name, "m"))
    for name in ("t", "u"):
        world.fills.consider(make_candidate(name, "n"))
    world.fills.resume(world.engines)
    assert world.begun() == ["r~fill0 on a", "t~fill1 on b"]
    world.end("t~fill1")
    assert world.begun() == ["u~fill2 on b"]
    world.end("r~fill0")
    assert world.begun() == ["s~fill3 on a"]


def test_oldest_of_too_many_that_are_put_off_is_dropped() -> None:
    world = World(config=EarlyFillConfig(max_per_engine=1, max_backlog=2))
    world.consider(*"rstu")
    world.end("r~fill0")
    assert world.begun() == ["t~fill1 on a"]


def test_request_is_put_off_once() -> None:
    world = World(config=EarlyFillConfig(max_per_engine=1, max_backlog=2))
    world.consider("r", "s", "t", "t")
    world.end("r~fill0")
    assert world.begun() == ["s~fill1 on a"]


def test_newer_candidate_of_a_request_takes_the_place_of_the_older() -> None:
    world = World()
    world.consider("first", "r", "s")
    world.fills.consider(make_candidate("r", tokens=200))
    world.end("first~fill0")
    (fill,) = [command for command in world.said() if isinstance(command, FillPrefix)]
    assert fill.prefixes == make_chain(("r", 200))


def test_stopped_request_is_not_put_off_any_more() -> None:
    world = World()
    world.consider("r", "s", "t")
    world.fills.stop(waiting("s").id)
    world.end("r~fill0")
    assert world.begun() == ["t~fill1 on a"]


def test_equal_candidate_is_put_off_once() -> None:
    world = World()
    world.consider("r", "s")
    assert not world.fills.is_wanted(waiting("s"), make_candidate("s").chain)
    assert world.fills.is_wanted(waiting("s"), make_candidate("more").chain)


def test_what_was_put_off_goes_where_there_is_room_first() -> None:
    world = World(make_engine_state("a"), make_engine_state("b"))
    world.consider("r", "s")
    world.consider("t", near=B)
    world.end("r~fill0")
    assert world.begun() == ["t~fill2 on a"]


def test_what_was_put_off_still_goes_near_its_producer() -> None:
    world = World(make_engine_state("a"), make_engine_state("b"))
    world.consider("r", "s")
    world.consider("t", near=B)
    world.fills.ended(AttemptId("r~fill0"), is_complete=True)
    world.end("s~fill1")
    assert world.begun() == ["t~fill2 on b"]


# --- what the index was promised ---------------------------------------------------------------


@pytest.mark.parametrize(("is_complete", "expected"), [(True, (A,)), (False, ())])
def test_failed_fill_takes_back_what_the_index_was_promised(
    is_complete: bool, expected: tuple[EngineId, ...]
) -> None:
    world = World()
    world.consider("r")
    world.end("r~fill0", is_complete=is_complete)
    assert world.index.engines_with(make_candidate("r").chain) == expected


def test_failed_fill_takes_nothing_back_that_the_engine_says_it_holds() -> None:
    world = World()
    world.consider("r")
    world.index.report(A, make_candidate("r").chain, ())
    world.end("r~fill0", is_complete=False)
    assert world.index.engines_with(make_candidate("r").chain) == (A,)


def test_failed_fill_takes_nothing_back_that_a_request_computes() -> None:
    world = World()
    world.index.record(A, make_chain(("head", 80)))
    chain = make_chain(("head", 80), ("r", 100))
    world.fills.consider(FillCandidate(waiting("r"), (KNOWN, PLACEHOLDER), 1, chain))
    world.fills.resume(world.engines)
    world.end("r~fill0", is_complete=False)
    assert world.index.engines_with(make_chain(("head", 80))) == (A,)


def test_fill_of_a_lost_engine_takes_nothing_back() -> None:
    world = World()
    world.consider("r")
    world.index.remove_engine(A)
    world.index.give_up(A, make_candidate("r").chain)
    assert world.index.engines_with(make_candidate("r").chain) == ()


# --- how they are stopped ----------------------------------------------------------------------


def test_fill_that_is_stopped_is_aborted() -> None:
    world = World()
    request = make_candidate("r").request
    world.consider("r")
    world.fills.stop(request.id)
    assert world.said() == [AbortRequest(A, AttemptId("r~fill0"), is_early=True)]
    assert len(world.fills) == 0


def test_stopped_fill_has_ended() -> None:
    world = World()
    world.consider("r")
    world.fills.stop(waiting("r").id)
    world.fills.stop(waiting("r").id)
    assert not world.end("r~fill0")
    assert [type(command) for command in world.said()] == [AbortRequest]


def test_what_is_not_filled_is_not_stopped() -> None:
    world = World()
    world.consider("r")
    world.fills.stop(waiting("s").id)
    assert world.said() == []


def test_fills_of_a_lost_engine_are_forgotten() -> None:
    world = World(make_engine_state("a"), make_engine_state("b"))
    world.consider("r", "s")
    world.fills.lose_engine(A)
    assert len(world.fills) == 1
    assert not world.end("r~fill0")
    world.fills.stop(waiting("r").id)
    assert world.said() == []


def test_request_whose_fill_was_lost_may_be_filled_again() -> None:
    world = World(make_engine_state("a"), make_engine_state("b"))
    world.consider("r")
    world.fills.lose_engine(A)
    world.index.remove_engine(A)
    world.engines.pop(0)
    assert world.consider("r") == ["r~fill1 on b"]


def test_request_whose_filled_prefix_was_lost_with_its_engine_may_be_filled_again() -> None:
    world = World(make_engine_state("a"), make_engine_state("b"))
    world.consider("r")
    world.end("r~fill0")
    world.fills.lose_engine(A)
    world.index.remove_engine(A)
    world.engines.pop(0)
    assert world.consider("r") == ["r~fill1 on b"]
