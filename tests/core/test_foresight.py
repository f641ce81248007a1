"""What the core makes of requests to come: prefixes to keep, and prompts to fill early."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from parrot_backend.core.commands import (
    AbortRequest,
    Command,
    FillPrefix,
    ReleasePrefixes,
    RetainPrefix,
    StartRequest,
)
from parrot_backend.core.config import CoreConfig, EarlyFillConfig
from parrot_backend.core.events import EngineInfo, NodeSpec, RequestFailed, RequestUsage
from parrot_backend.core.ids import SessionId
from parrot_backend.core.prefix import PrefixBoundary, prefix_chain
from parrot_backend.core.prompt import PartKind, PromptPart, Role, Segment, Text
from parrot_backend.core.resolution import PLACEHOLDER
from parrot_backend.core.transforms import JsonField, Strip
from tests.core.audit import audited_driver, foresight_of, mentions
from tests.core.steps import count_steps, growth
from tests.helpers.builders import (
    LATENCY,
    make_call,
    make_engine,
    make_step,
    make_submission,
    make_transform,
    make_wanted,
    read,
    write,
)
from tests.helpers.core_driver import (
    CoreDriver,
    Outcome,
    Reply,
    finished,
    name_of_attempt,
    of_type,
)

#: 100 tokens of text that prompts begin with, by the first estimate.
HEAD = "x" * 400
OTHER = SessionId("other")
#: Leaves the estimate of lengths as it is.
SAYS_NOTHING = RequestUsage(0, 2)
NEARLY_LINEAR = 2.6


def keeper(name: str = "e0", *, max_requests: int = 16) -> EngineInfo:
    """Return an engine that keeps prefixes and takes updates."""
    return make_engine(name, max_requests=max_requests, keeps_prefixes=True, takes_updates=True)


def make_driver(*engines: EngineInfo, config: CoreConfig | None = None) -> CoreDriver:
    return audited_driver(*(engines or (keeper(),)), config=config)


def without_fills(*engines: EngineInfo) -> CoreDriver:
    return make_driver(*engines, config=CoreConfig(early_fill=EarlyFillConfig(is_on=False)))


def finish(driver: CoreDriver, output: str, text: str = "value") -> list[Command]:
    return driver.finish(output, text, usage=SAYS_NOTHING)


def key(*texts: str) -> bytes:
    """Return the boundary after texts of the tenant and model that tests use."""
    parts = tuple(PromptPart(PartKind.CONSTANT, text) for text in texts)
    return prefix_chain("7:default/m", parts, 1.0)[-1].hash


def retained(commands: Iterable[Command], output: str) -> tuple[bytes, ...]:
    """Return what the engine keeps of the prompt of the request that starts."""
    (start,) = [
        s for s in of_type(commands, StartRequest) if s.attempt.startswith(f"s.{output}#0~")
    ]
    return start.retain


def filled(commands: Iterable[Command]) -> list[str]:
    """Return what fills begin, as the name of the call and the number of known parts."""
    return [
        f"{name_of_attempt(fill.attempt).partition('#')[0]} {fill.num_known}"
        for fill in of_type(commands, FillPrefix)
    ]


def stopped(commands: Iterable[Command]) -> list[str]:
    aborts = [abort for abort in of_type(commands, AbortRequest) if abort.is_early]
    return [name_of_attempt(abort.attempt).partition("#")[0] for abort in aborts]


def sharing(*names: str) -> list[NodeSpec]:
    """Return calls that are ready at once and begin alike."""
    return [make_call(name, HEAD, f" own {name}", write(name)) for name in names]


# --- prefixes that are kept --------------------------------------------------------------------


def test_engine_keeps_what_others_will_read_too() -> None:
    driver = without_fills(keeper(max_requests=1))
    assert retained(driver.submit(*sharing("a", "b", "c")), "a") == (key(HEAD),)
    assert retained(finish(driver, "a"), "b") == (key(HEAD),)
    assert retained(finish(driver, "b"), "c") == ()


def test_engine_keeps_nothing_for_a_call_alone() -> None:
    assert retained(without_fills().submit(*sharing("a")), "a") == ()


def test_engine_keeps_what_a_request_that_waits_will_read() -> None:
    driver = without_fills()
    commands = driver.submit(*sharing("a"), make_step("b", "a", prompt=HEAD))
    assert retained(commands, "a") == (key(HEAD),)


def test_engine_keeps_what_another_session_of_the_tenant_will_read() -> None:
    driver = without_fills()
    driver.submit(*sharing("a"))
    commands = driver.submit(make_call("b", HEAD, "own", write("b", session=OTHER)), session=OTHER)
    assert of_type(commands, RetainPrefix) == [RetainPrefix(keeper().engine, key(HEAD), None)]


def test_engine_keeps_nothing_for_another_tenant() -> None:
    driver = without_fills()
    driver.submit(*sharing("a"))
    commands = driver.submit(
        make_call("b", HEAD, "own", write("b", session=OTHER)), session=OTHER, tenant="other"
    )
    assert of_type(commands, RetainPrefix) == []


def test_engine_that_holds_what_becomes_wanted_is_told() -> None:
    driver = without_fills()
    driver.submit(*sharing("a"), variables={"x": None})
    finish(driver, "a")
    commands = driver.submit(make_step("b", "x", prompt=HEAD), is_new=False)
    assert of_type(commands, RetainPrefix) == [RetainPrefix(keeper().engine, key(HEAD), None)]


def test_prefix_is_let_go_once_when_its_last_reader_has_ended() -> None:
    driver = without_fills(keeper(max_requests=1))
    driver.submit(*sharing("a", "b", "c"))
    assert of_type(finish(driver, "a"), ReleasePrefixes) == []
    assert of_type(finish(driver, "b"), ReleasePrefixes) == []
    released = [ReleasePrefixes(keeper().engine, (key(HEAD),))]
    assert of_type(finish(driver, "c"), ReleasePrefixes) == released


@pytest.mark.parametrize(
    "end",
    [
        lambda driver: driver.cancel("b"),
        lambda driver: driver.close(),
        lambda driver: driver.fail("a"),
        lambda driver: driver.leave("w", cancel=True),
    ],
    ids=["cancelled", "closed", "failed", "left"],
)
def test_prefix_is_let_go_when_its_reader_will_not_come(
    end: Callable[[CoreDriver], list[Command]],
) -> None:
    driver = without_fills()
    driver.submit(
        make_call("a", HEAD, "own", write("a")),
        make_step("b", "a", prompt=HEAD),
        wanted=[make_wanted("b", waiter="w")],
    )
    assert of_type(end(driver), ReleasePrefixes) == [ReleasePrefixes(keeper().engine, (key(HEAD),))]


def test_engine_that_keeps_no_prefixes_hears_of_none() -> None:
    driver = without_fills(make_engine("plain", max_requests=1))
    commands = driver.submit(*sharing("a", "b"), variables={"x": None})
    commands += driver.submit(make_step("c", "x", prompt=HEAD), is_new=False)
    commands += finish(driver, "a") + finish(driver, "b") + driver.close()
    assert [s.retain for s in of_type(commands, StartRequest)] == [(), ()]
    assert {type(c) for c in commands}.isdisjoint({RetainPrefix, ReleasePrefixes, FillPrefix})
    assert len(foresight_of(driver.coordinator).retention) == 0


def test_nothing_is_kept_when_it_is_switched_off() -> None:
    driver = make_driver(config=CoreConfig(retain_prefixes=False))
    commands = driver.submit(*sharing("a", "b"), make_step("c", "a", prompt=HEAD))
    commands += finish(driver, "a") + finish(driver, "b") + finish(driver, "c")
    assert all(s.retain == () for s in of_type(commands, StartRequest))
    assert {type(c) for c in commands}.isdisjoint({RetainPrefix, ReleasePrefixes})


def test_lost_engine_keeps_nothing() -> None:
    driver = without_fills(keeper("e0"), keeper("e1"))
    driver.submit(*sharing("a"), make_step("b", "a", prompt=HEAD))
    commands = driver.lose("e0")
    assert retained(commands, "a") == (key(HEAD),)
    released = [*finish(driver, "a"), *finish(driver, "b")]
    assert [r.engine for r in of_type(released, ReleasePrefixes)] == ["e1"]


@pytest.mark.xfail(strict=True, reason="open: ready before an engine kept")
def test_calls_that_came_before_the_engine_share_what_it_keeps() -> None:
    driver = without_fills(make_engine("plain", max_requests=1))
    driver.submit(make_step("first"), *sharing("a", "b", "c"))
    commands = driver.join(keeper(max_requests=1))
    assert retained(commands, "a") == (key(HEAD),)


# --- prompt and output that are kept -----------------------------------------------------------


def two_outputs(*between: str) -> NodeSpec:
    segments = [read(name) for name in between]
    return make_call("c", HEAD, write("a"), *segments, " and ", write("b"))


@pytest.mark.parametrize("between", [(), ("x",)], ids=["goes on at once", "waits for a value"])
def test_prompt_and_output_are_kept_for_the_next_output(between: tuple[str, ...]) -> None:
    driver = without_fills()
    driver.submit(two_outputs(*between), variables={"x": None})
    attempt = driver.attempt("a")
    commands = finish(driver, "a", "text")
    kept = RetainPrefix(keeper().engine, key(HEAD, "text"), attempt)
    assert kept in of_type(commands, RetainPrefix)


def test_prompt_and_output_are_kept_once_and_let_go_with_the_next_output() -> None:
    driver = without_fills()
    driver.submit(two_outputs())
    continuation = key(HEAD, "text")
    commands = finish(driver, "a", "text")
    assert [r.key for r in of_type(commands, RetainPrefix)].count(continuation) == 1
    released = of_type(finish(driver, "b"), ReleasePrefixes)
    assert [r.keys.count(continuation) for r in released] == [1]


def test_prompt_and_last_output_are_not_kept() -> None:
    driver = without_fills()
    driver.submit(two_outputs())
    finish(driver, "a", "text")
    assert of_type(finish(driver, "b"), RetainPrefix) == []


def test_output_that_is_read_elsewhere_is_not_kept_in_its_place() -> None:
    driver = without_fills()
    driver.submit(make_call("a", HEAD, write("a")), make_step("b", "a", prompt="other"))
    assert of_type(finish(driver, "a", "text"), RetainPrefix) == []


def test_prompt_and_output_are_kept_for_a_call_that_begins_with_them_by_chance() -> None:
    driver = without_fills()
    driver.submit(
        make_call("a", HEAD, write("a")),
        make_call("b", HEAD, read("a"), read("x"), write("b")),
        variables={"x": None},
    )
    kept = of_type(finish(driver, "a", "text"), RetainPrefix)
    assert [r.key for r in kept] == [key(HEAD, "text")]


# --- prompts that are filled -------------------------------------------------------------------


def test_prompt_is_filled_while_its_input_is_being_made() -> None:
    driver = make_driver()
    commands = driver.submit(make_step("a"), make_call("b", HEAD, read("a"), "end", write("b")))
    (fill,) = of_type(commands, FillPrefix)
    assert fill.parts == (
        PromptPart(PartKind.CONSTANT, HEAD),
        PLACEHOLDER,
        PromptPart(PartKind.CONSTANT, "end"),
    )
    assert (fill.num_known, fill.engine, fill.model) == (1, "e0", "m")
    assert fill.prefixes == (PrefixBoundary(key(HEAD), 100),)
    assert fill.retain == (key(HEAD),)


def test_prompt_is_not_filled_before_its_input_is_being_made() -> None:
    driver = make_driver(keeper(max_requests=1))
    a, first = make_step("a"), make_step("first")
    commands = driver.submit(first, a, make_step("b", "a", prompt=HEAD))
    assert filled(commands) == []
    assert filled(finish(driver, "first")) == ["b 1"]


@pytest.mark.parametrize(
    ("through", "inputs"),
    [
        ((make_transform("t", read("a"), transforms=(Strip(),)),), "t"),
        ((make_transform("t", read("a")), make_transform("u", "<", read("t"))), "u"),
    ],
)
def test_prompt_is_filled_while_a_transform_of_its_input_is_to_come(
    through: tuple[NodeSpec, ...], inputs: str
) -> None:
    driver = make_driver()
    commands = driver.submit(make_step("a"), *through, make_step("b", inputs, prompt=HEAD))
    assert filled(commands) == ["b 1"]


def test_prompt_is_filled_while_a_client_has_yet_to_set_its_input() -> None:
    driver = make_driver()
    commands = driver.submit(make_step("b", "x", prompt=HEAD), variables={"x": None})
    assert filled(commands) == ["b 1"]


def test_prompt_of_a_call_that_is_added_later_is_filled() -> None:
    driver = make_driver()
    driver.submit(make_step("a"))
    assert filled(driver.submit(make_step("b", "a", prompt=HEAD), is_new=False)) == ["b 1"]


def test_prompt_is_filled_up_to_the_first_missing_value() -> None:
    driver = make_driver()
    segments: list[Segment] = [
        Role("user"),
        Text(HEAD),
        read("known"),
        read("x"),
        Text("more"),
        read("known"),
    ]
    commands = driver.submit(
        make_call("b", *segments, write("b")), variables={"x": None, "known": "v"}
    )
    assert filled(commands) == ["b 3"]


@pytest.mark.parametrize(("num_chars", "expected"), [(199, []), (200, ["b 2"])])
def test_prompt_is_filled_further_when_much_more_of_it_is_known(
    num_chars: int, expected: list[str]
) -> None:
    driver = make_driver()
    driver.submit(make_step("b", "x", "y", prompt=HEAD), variables={"x": None, "y": None})
    driver.end_fill("b")
    assert filled(driver.set("x", "v" * num_chars)) == expected


def test_prompt_is_filled_only_when_all_that_the_missing_value_needs_is_on_its_way() -> None:
    driver = make_driver(keeper(max_requests=1))
    both = make_transform("t", read("a"), read("x"), read("late"))
    steps = [make_step("a"), make_step("late", "x"), make_step("b", "t", prompt=HEAD)]
    assert filled(driver.submit(*steps, both, variables={"x": None})) == []
    driver.set("x", "v")
    assert filled(finish(driver, "a")) == ["b 1"]


def test_prompt_behind_a_value_that_cannot_be_transformed_is_not_filled() -> None:
    driver = make_driver()
    call = make_call("b", HEAD, read("known", JsonField("a")), read("x"), write("b"))
    assert filled(driver.submit(call, variables={"x": None, "known": "no json"})) == []


@pytest.mark.parametrize(("num_chars", "expected"), [(255, []), (256, ["b 1"])])
def test_short_prompt_is_not_filled(num_chars: int, expected: list[str]) -> None:
    driver = make_driver()
    step = make_step("b", "x", prompt="x" * num_chars)
    assert filled(driver.submit(step, variables={"x": None})) == expected


def test_equal_prompts_are_filled_once() -> None:
    driver = make_driver(config=CoreConfig(early_fill=EarlyFillConfig(max_per_engine=9)))
    steps = [make_step(name, "x", prompt=HEAD) for name in ("b", "c", "d")]
    assert filled(driver.submit(*steps, variables={"x": None})) == ["b 1"]
    assert filled(driver.end_fill("b")) == []


def test_prompt_that_an_engine_holds_is_not_filled() -> None:
    driver = make_driver()
    driver.submit(make_call("a", HEAD, write("a")))
    commands = driver.submit(make_step("b", "x", prompt=HEAD), is_new=False, variables={"x": None})
    assert filled(commands) == []


def test_prompt_that_an_engine_lost_is_filled() -> None:
    driver = make_driver()
    driver.submit(make_call("a", HEAD, write("a")))
    driver.report(lost=[key(HEAD)])
    commands = driver.submit(make_step("b", "x", prompt=HEAD), is_new=False, variables={"x": None})
    assert filled(commands) == ["b 1"]


def test_second_output_is_not_filled_while_the_first_is_being_made() -> None:
    assert filled(make_driver().submit(two_outputs())) == []


def test_only_some_of_very_many_consumers_are_looked_at() -> None:
    config = CoreConfig(early_fill=EarlyFillConfig(max_per_engine=1000))
    steps = [make_step(f"b{i}", "a", prompt=f"{i:400}") for i in range(100)]
    driver = make_driver(keeper(max_requests=1), config=config)
    driver.submit(make_step("first"), make_step("a"), *steps)
    assert len(filled(finish(driver, "first"))) == 64


def test_nothing_is_filled_when_it_is_switched_off() -> None:
    commands = without_fills().submit(make_step("a"), make_step("b", "a", prompt=HEAD))
    assert filled(commands) == []


def test_nothing_is_filled_by_an_engine_that_keeps_no_prefixes() -> None:
    driver = make_driver(make_engine("plain"))
    assert filled(driver.submit(make_step("a"), make_step("b", "a", prompt=HEAD))) == []


def test_fill_goes_to_the_engine_that_makes_the_input() -> None:
    driver = make_driver(keeper("e0"), keeper("e1"))
    driver.submit(make_step("other"), make_step("a"), make_step("b", "a", prompt=HEAD))
    (fill,) = driver.fills.values()
    assert fill.engine == driver.request("a").engine


def test_filled_request_starts_where_it_was_filled() -> None:
    driver = make_driver(keeper("e0"), keeper("e1"))
    driver.submit(make_step("b", "x", prompt=HEAD), variables={"x": None})
    (fill,) = driver.fills.values()
    driver.end_fill("b")
    (start,) = of_type(driver.set("x", "v"), StartRequest)
    assert start.engine == fill.engine


def test_prompt_is_not_filled_that_a_request_computes_from_now_on() -> None:
    commands = make_driver().submit(
        make_step("b", "x", prompt=HEAD), *sharing("a"), variables={"x": None}
    )
    assert filled(commands) == []


# --- how fills end -----------------------------------------------------------------------------


def filling(*engines: EngineInfo) -> CoreDriver:
    """Return a driver with two fills that run and one that is put off."""
    driver = make_driver(*engines)
    driver.submit(
        *(make_step(f"b{i}", f"x{i}", prompt=f"{i:400}") for i in range(3)),
        variables={f"x{i}": None for i in range(3)},
    )
    return driver


def test_engine_has_two_fills_at_once() -> None:
    assert filling().filled_outputs == ["b0", "b1"]


def test_two_engines_have_two_fills_each() -> None:
    assert filling(keeper("e0"), keeper("e1")).filled_outputs == ["b0", "b1", "b2"]


@pytest.mark.parametrize("end", [CoreDriver.end_fill, CoreDriver.fail_fill])
def test_next_fill_is_begun_when_one_ends(
    end: Callable[[CoreDriver, str], list[Command]],
) -> None:
    driver = filling()
    assert filled(end(driver, "b1")) == ["b2 1"]
    assert driver.filled_outputs == ["b0", "b2"]


def test_next_fill_is_begun_when_one_is_stopped() -> None:
    driver = filling()
    driver.set("x0", "v")
    assert driver.filled_outputs == ["b1", "b2"]


def test_next_fill_is_begun_when_the_engine_is_replaced() -> None:
    driver = filling()
    driver.lose("e0")
    assert filled(driver.join(keeper("e1"))) != []


@pytest.mark.parametrize(
    "end",
    [
        lambda driver: driver.set("x0", "v"),
        lambda driver: driver.cancel("b0"),
        lambda driver: driver.cancel("x0"),
        lambda driver: driver.leave("w", cancel=True),
    ],
    ids=["ready", "cancelled", "input cancelled", "left"],
)
def test_fill_is_stopped_when_its_request_waits_no_more(
    end: Callable[[CoreDriver], list[Command]],
) -> None:
    driver = filling()
    driver.get("b0", "w")
    assert stopped(end(driver)) == ["b0"]


def test_fill_is_stopped_when_the_producer_fails() -> None:
    driver = make_driver()
    driver.submit(make_step("a"), make_step("b", "a", prompt=HEAD))
    assert stopped(driver.fail("a")) == ["b"]


def test_fills_are_stopped_when_the_session_ends() -> None:
    assert stopped(filling().close()) == ["b0", "b1"]


def test_fill_that_is_stopped_is_aborted_before_the_request_starts() -> None:
    kinds = [type(command) for command in filling().set("x0", "v")]
    assert kinds.index(AbortRequest) < kinds.index(StartRequest)


def test_fill_that_has_ended_is_not_stopped() -> None:
    driver = filling()
    driver.end_fill("b0")
    assert stopped(driver.set("x0", "v")) == []


def test_fill_goes_on_while_its_request_still_waits() -> None:
    driver = make_driver()
    driver.submit(make_step("b", "x", "y", prompt=HEAD), variables={"x": None, "y": None})
    commands = driver.set("y", "v")
    assert (stopped(commands), filled(commands)) == ([], [])


@pytest.mark.parametrize("is_retryable", [False, True])
def test_failed_fill_is_no_failure_of_its_request(is_retryable: bool) -> None:
    driver = filling()
    before = driver.coordinator.num_unfinished_calls
    attempt = driver.fill_of("b0")
    driver.send(RequestFailed(attempt, "prompt_too_long", "it is", is_retryable))
    assert driver.request("b0").attempts == 0
    assert driver.coordinator.num_unfinished_calls == before
    driver.set("x0", "v")
    finish(driver, "b0", "text")
    assert driver.variable("b0").value == "text"


def test_finished_fill_gives_no_value() -> None:
    driver = filling()
    driver.get("b0", "w")
    driver.send(finished(driver.fill_of("b0"), "text"))
    assert driver.variable("b0").value is None
    assert driver.answers == {}


def test_prompt_whose_fill_failed_may_be_filled_for_another() -> None:
    driver = make_driver()
    driver.submit(make_step("b", "x", prompt=HEAD), variables={"x": None})
    driver.fail_fill("b")
    assert filled(driver.submit(make_step("c", "x", prompt=HEAD), is_new=False)) == ["c 1"]


def test_lost_engine_fills_nothing() -> None:
    driver = filling()
    driver.lose("e0")
    assert len(foresight_of(driver.coordinator).fills) == 0
    assert stopped(driver.set("x0", "v")) == []


def test_prompt_is_filled_elsewhere_after_its_engine_was_lost() -> None:
    driver = make_driver(keeper("e0"), keeper("e1"))
    driver.submit(make_step("b", "x", "y", prompt=HEAD), variables={"x": None, "y": None})
    (fill,) = driver.fills.values()
    driver.lose(fill.engine)
    assert filled(driver.set("x", "v")) == ["b 2"]


def test_fill_that_is_put_off_is_forgotten_with_its_session() -> None:
    driver = filling()
    driver.close()
    assert mentions(driver, "s") == []


# --- costs -------------------------------------------------------------------------------------

Action = Callable[[], object]


def long_reply(_start: StartRequest) -> Outcome:
    return Reply("v" * 200, 1.0, num_pieces=1)


def quick_fill(_fill: FillPrefix) -> Outcome:
    return Reply("", 0.3, num_pieces=0)


def playing(
    nodes: Callable[[int], list[NodeSpec]], *, max_requests: int, fills: bool = True
) -> Callable[[int], Action]:
    """Return an action that submits a program to an engine that keeps prefixes, and plays it."""

    def prepare(number: int) -> Action:
        engine = make_engine(
            capacity_tokens=10**9,
            latency_capacity_tokens=10**9,
            max_requests=max_requests,
            keeps_prefixes=True,
            takes_updates=True,
        )
        config = CoreConfig(early_fill=EarlyFillConfig(is_on=fills))
        driver = CoreDriver(engine, config=config, behaviour=long_reply, fill_behaviour=quick_fill)
        specs = nodes(number)
        wanted = [make_wanted(specs[-1].name, LATENCY)]
        submission = make_submission(*specs, variables={"x": None}, wanted=wanted)

        def play() -> None:
            driver.send(submission)
            driver.set("x", "value")
            driver.run()
            assert driver.coordinator.num_unfinished_calls == 0

        return play

    return prepare


def chain(number: int) -> list[NodeSpec]:
    """Return steps that each read the one before, and begin alike."""
    return [make_step(f"v{i}", f"v{i - 1}" if i else "x", prompt=HEAD) for i in range(number)]


def map_reduce(number: int) -> list[NodeSpec]:
    """Return steps that begin alike, and one that reads them all."""
    maps = [make_call(f"v{i}", HEAD, f"{i}", write(f"v{i}")) for i in range(number - 1)]
    return [*maps, make_step("out", *(step.name for step in maps), prompt=HEAD + "out")]


def fan_out(number: int) -> list[NodeSpec]:
    """Return steps that read one value, each behind a prompt of its own."""
    return [make_step(f"v{i}", "x", prompt=f"{i:400}") for i in range(number)]


def shared(number: int) -> list[NodeSpec]:
    return sharing(*(f"v{i}" for i in range(number)))


def followed_one_by_one(number: int) -> list[NodeSpec]:
    """Return pairs of steps whose second is filled while the first runs."""
    nodes: list[NodeSpec] = []
    for i in range(number // 2):
        nodes += [make_step(f"a{i}", prompt="p"), make_step(f"b{i}", f"a{i}", prompt=f"{i:400}")]
    return nodes


COSTS = {
    "calls that share a prefix": (playing(shared, max_requests=16), 150),
    "calls that share a prefix, all at once": (playing(shared, max_requests=10_000), 150),
    "a long chain": (playing(chain, max_requests=16), 150),
    "a wide map-reduce on many slots": (playing(map_reduce, max_requests=10_000), 150),
    "a wide map-reduce without fills": (playing(map_reduce, max_requests=4, fills=False), 150),
    "a wide fan-out": (playing(fan_out, max_requests=16), 150),
    "pairs": (playing(followed_one_by_one, max_requests=4), 150),
}


@pytest.mark.parametrize(("prepare", "number"), COSTS.values(), ids=COSTS)
def test_cost_is_nearly_linear_in_the_number_of_calls(
    prepare: Callable[[int], Action], number: int
) -> None:
    assert growth(prepare, number) < NEARLY_LINEAR


def test_what_is_sent_to_fill_a_wide_reduce_is_nearly_linear_in_its_inputs() -> None:
    def num_parts_sent(number: int) -> int:
        driver = CoreDriver(keeper(max_requests=4), behaviour=long_reply, fill_behaviour=quick_fill)
        driver.submit(*map_reduce(number))
        driver.run()
        commands = [command for _, _, commands in driver.history for command in commands]
        return sum(len(fill.parts) for fill in of_type(commands, FillPrefix))

    assert num_parts_sent(80) < NEARLY_LINEAR * num_parts_sent(40)


def test_2000_calls_that_share_a_prefix_are_served() -> None:
    playing(shared, max_requests=64)(2000)()


def diamonds(number: int) -> list[NodeSpec]:
    """Return a step and transforms of it that part and meet again, so many times."""
    nodes: list[NodeSpec] = [make_step("t0", prompt="p")]
    for i in range(number):
        sides = [make_transform(f"{side}{i}", read(f"t{i}")) for side in "ab"]
        nodes += [*sides, make_transform(f"t{i + 1}", read(f"a{i}"), read(f"b{i}"))]
    return nodes


def test_cost_of_transforms_that_part_and_meet_again_is_nearly_linear() -> None:
    def steps(number: int) -> int:
        driver = CoreDriver(make_engine())
        return count_steps(lambda: driver.submit(*diamonds(number)))

    assert steps(12) < NEARLY_LINEAR * steps(6)
