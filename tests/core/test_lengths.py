"""Lengths of outputs: what is learnt of which kind of call, and within which bounds."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.core.config import CoreConfig, LengthConfig
from parrot_backend.core.events import CallSpec, RequestFinished, RequestUsage
from parrot_backend.core.ids import SessionId
from parrot_backend.core.length_sketch import LengthSketch
from parrot_backend.core.lengths import LengthBook, kinds_of
from parrot_backend.core.nodes import Request
from parrot_backend.core.output_forecast import OutputForecast
from tests.core.hypothesis_settings import examples
from tests.helpers.builders import (
    make_body,
    make_call,
    make_engine,
    make_map,
    make_step,
    make_submission,
    make_wanted,
    read,
    request_id,
    write,
)
from tests.helpers.core_driver import CoreDriver

# --- one distribution --------------------------------------------------------------------------


def sketch_of(lengths: list[int], num_cut: int = 0) -> LengthSketch:
    sketch = LengthSketch()
    for length in lengths:
        sketch.add(length, is_cut=False)
    for _ in range(num_cut):
        sketch.add(7, is_cut=True)
    return sketch


@pytest.mark.parametrize(
    ("lengths", "mean", "high"),
    [
        ([7], 7, 7),
        ([0], 0, 1),  # who reserves nothing has no room for the end of the text
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 5.6, 10),
        ([1000] + [100] * 9, 186, 103),  # of nine in ten; the bin is 96 to 103
        ([100] * 8 + [1000] * 2, 280, 1023),
        ([2**30], 2**20, 2**20 + 2**17 - 1),
    ],
)
def test_forecast_of_a_sketch(lengths: list[int], mean: float, high: int) -> None:
    found = sketch_of(lengths).forecast()
    assert found is not None
    assert found.high_tokens == high
    assert found.mean_tokens == pytest.approx(mean, rel=0.07)
    assert found.num_seen == len(lengths)


@pytest.mark.parametrize(("num_cut", "is_known"), [(0, True), (1, True), (4, False), (40, False)])
def test_outputs_that_were_cut_count_as_longer_than_any(num_cut: int, is_known: bool) -> None:
    found = sketch_of([5] * 20, num_cut).forecast()
    assert (found is not None) == is_known
    if found is not None:
        assert found.high_tokens == 5


def test_nothing_is_known_of_nothing() -> None:
    assert LengthSketch().forecast() is None


def test_what_is_old_fades() -> None:
    found = sketch_of([1000] * 500 + [10] * 300).forecast()
    assert found is not None
    assert found.high_tokens == 10
    assert 10 < found.mean_tokens < 60
    assert found.num_seen == 800


def test_weights_stay_within_what_a_float_holds() -> None:
    found = sketch_of([20, 40] * 50_000).forecast()
    assert found is not None
    assert found.mean_tokens == pytest.approx(30, rel=0.02)
    assert found.high_tokens == 43


@examples(200)
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=60))
def test_high_is_the_ninth_tenth_rounded_up_to_a_bin(lengths: list[int]) -> None:
    """Against counting, with the same weights."""
    found = sketch_of(lengths).forecast()
    assert found is not None
    weights = [2 ** (i / 64) for i in range(len(lengths))]
    total = sum(weights)
    by_length = sorted(zip(lengths, weights, strict=True))
    seen, exact = 0.0, by_length[-1][0]
    for length, weight in by_length:
        seen += weight
        if seen >= 0.9 * total * (1 - 1e-6):
            exact = length
            break
    assert exact <= found.high_tokens <= max(1, exact * 9 / 8)
    mean = sum(n * w for n, w in by_length) / total
    assert found.mean_tokens == pytest.approx(mean)


# --- kinds -------------------------------------------------------------------------------------


def request_of(call: CallSpec, app: str = "app", step: int = 0) -> Request:
    driver = CoreDriver()
    driver.send(make_submission(call, wanted=[make_wanted("x")]))
    node = driver.coordinator.session(SessionId("s")).graph.nodes[request_id(call.name, step)]
    assert isinstance(node, Request)
    return node


def summarise(name: str, text: str, stage: str | None = None) -> CallSpec:
    return replace(make_call(name, "You sum up. ", text, write("x")), stage=stage)


_PLAIN = summarise("sum_1", "Sum up part 1.")


@pytest.mark.parametrize(
    ("other", "is_finest_equal", "is_coarse_equal"),
    [
        (summarise("sum_2", "Sum up part 27."), True, True),
        (summarise("sum_1", "Another text."), False, True),
        (summarise("draw", "Sum up part 1."), False, False),
        (summarise("sum_1", "Sum up part 1.", stage="sum"), False, False),
    ],
)
def test_calls_of_one_kind(other: CallSpec, is_finest_equal: bool, is_coarse_equal: bool) -> None:
    ours, theirs = kinds_of(request_of(_PLAIN), "app"), kinds_of(request_of(other), "app")
    assert (ours[0] == theirs[0], ours[-1] == theirs[-1]) == (is_finest_equal, is_coarse_equal)


def test_a_stage_is_a_kind_whatever_its_calls_say() -> None:
    one = request_of(summarise("a", "First.", stage="write 1"))
    two = request_of(summarise("b", "Second.", stage="write 2"))
    assert kinds_of(one, "app")[-1] == kinds_of(two, "app")[-1]


def test_applications_and_tenants_are_apart() -> None:
    request = request_of(_PLAIN)
    assert not {*kinds_of(request, "1:a/app")} & {*kinds_of(request, "1:b/app")}


def test_outputs_of_a_call_are_kinds_of_their_own() -> None:
    call = make_call("c", "Write ", write("x"), " and ", write("y"))
    one, two = kinds_of(request_of(call), "app"), kinds_of(request_of(call, step=1), "app")
    assert not {*one} & {*two}


# --- the book ----------------------------------------------------------------------------------

_BOOK = LengthConfig(min_outputs=2)


def kinds(*names: str) -> tuple[bytes, ...]:
    return tuple(name.encode() for name in names)


def test_the_finest_kind_that_is_known_is_believed() -> None:
    book = LengthBook(_BOOK)
    for tokens in (10, 10):
        book.learn(kinds("fine", "coarse"), tokens, is_cut=False)
    for tokens in (500, 500, 500, 500):
        book.learn(kinds("other", "coarse"), tokens, is_cut=False)
    assert book.forecast(kinds("fine", "coarse")) == OutputForecast(10.0, 10, 2)
    new = book.forecast(kinds("new", "coarse"))
    assert new is not None
    assert (new.high_tokens, new.num_seen) == (511, 6)
    assert book.forecast(kinds("new", "unknown")) is None


def test_few_outputs_say_too_little() -> None:
    book = LengthBook(_BOOK)
    book.learn(kinds("a"), 10, is_cut=False)
    assert book.forecast(kinds("a")) is None


def test_a_kind_whose_outputs_are_cut_is_known_by_its_coarser_one_at_most() -> None:
    book = LengthBook(_BOOK)
    for _ in range(3):
        book.learn(kinds("cut"), 64, is_cut=True)
        book.learn(kinds("coarse"), 100, is_cut=False)
    assert book.forecast(kinds("cut")) is None
    assert book.forecast(kinds("cut", "coarse")) is not None


def test_memory_is_bounded_and_what_came_again_stays() -> None:
    book = LengthBook(LengthConfig(min_outputs=1, max_kinds=64, max_bytes=40_000))
    for number in range(500):
        book.learn(kinds("often"), 7, is_cut=False)
        book.learn(kinds(f"once {number}"), number, is_cut=False)
        assert len(book) <= 64
        assert book.num_bytes <= 40_000
    assert book.forecast(kinds("often")) is not None
    assert book.forecast(kinds("once 499")) is not None
    assert book.forecast(kinds("once 400")) is None


def test_bytes_are_counted_no_smaller_than_they_are() -> None:
    draw = Random(1)
    names = [number.to_bytes(8) for number in range(500)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        book = LengthBook(LengthConfig())
        for name in names:
            for _ in range(9):
                book.learn((name,), int(draw.lognormvariate(5, 1)), is_cut=False)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= book.num_bytes <= 4 * taken


# --- in the core -------------------------------------------------------------------------------

_ENGINE = make_engine(capacity_tokens=10**6, latency_capacity_tokens=10**6, max_requests=64)


def run_one(driver: CoreDriver, session: str, tokens: int, reason: str = "stop") -> Request:
    name = SessionId(session)
    call = make_step("x", session=name, max_tokens=400, prompt="Sum up. ")
    wanted = [make_wanted("x", session=name)]
    driver.send(make_submission(call, session=name, wanted=wanted))
    request = driver.coordinator.session(name).graph.nodes[request_id("x", session=name)]
    assert isinstance(request, Request)
    finish(driver, request, tokens, reason)
    return request


def finish(driver: CoreDriver, request: Request, tokens: int, reason: str = "stop") -> None:
    assert request.attempt is not None
    usage = RequestUsage(10, tokens)
    driver.send(RequestFinished(request.attempt, "word", None, reason, usage))


def test_memory_is_reserved_for_what_declared_calls_hardly_exceed() -> None:
    driver = CoreDriver(_ENGINE)
    made = [run_one(driver, f"s{number}", 20) for number in range(9)]
    reserved = [request.need_tokens - request.prompt_tokens for request in made]
    assert reserved == [400] * 8 + [21]
    assert made[8].forecast == OutputForecast(20.0, 21, 8)
    assert made[8].expected_tokens == pytest.approx(20.0)


def test_a_limit_below_the_forecast_holds() -> None:
    driver = CoreDriver(_ENGINE)
    for number in range(8):
        run_one(driver, f"s{number}", 300)
    call = make_step("x", session=SessionId("s9"), max_tokens=30, prompt="Sum up. ")
    driver.send(make_submission(call, session=SessionId("s9")))
    request = driver.coordinator.session(SessionId("s9")).graph.nodes[
        request_id("x", session=SessionId("s9"))
    ]
    assert isinstance(request, Request)
    assert request.expected_tokens == 30
    assert request.need_tokens == request.prompt_tokens + 30


def test_without_learning_nothing_is_forecast() -> None:
    config = CoreConfig(lengths=LengthConfig(is_on=False))
    driver = CoreDriver(_ENGINE, config=config)
    made = [run_one(driver, f"s{number}", 20) for number in range(9)]
    assert made[8].forecast is None
    assert made[8].need_tokens - made[8].prompt_tokens == 400


def test_outputs_cut_at_their_limit_teach_nothing() -> None:
    driver = CoreDriver(_ENGINE)
    made = [run_one(driver, f"s{number}", 400, "length") for number in range(9)]
    assert made[8].forecast is None


def map_of_words(driver: CoreDriver, session: str) -> list[Request]:
    """Submit a map over twelve items; return the calls of its instances."""
    name = SessionId(session)
    say = make_call(
        "k", "Say ", read("item", session=name), write("k", session=name, max_tokens=400)
    )
    plan = make_map("m", "list", make_body("k", say, session=name), session=name)
    items = "[" + ", ".join(f'"{n}"' for n in range(12)) + "]"
    wanted = [make_wanted("m", session=name)]
    driver.send(make_submission(plan, session=name, variables={"list": items}, wanted=wanted))
    nodes = driver.coordinator.session(name).graph.nodes.values()
    return [node for node in nodes if isinstance(node, Request)]


def test_instances_of_a_map_are_of_one_kind() -> None:
    driver = CoreDriver(_ENGINE)
    first = map_of_words(driver, "one")
    assert len(first) == 12
    assert len({request.kinds for request in first}) == 1
    for request in first:
        finish(driver, request, 20)
    assert {r.forecast for r in map_of_words(driver, "two")} == {OutputForecast(20.0, 21, 12)}
