"""The scripted engine: the contract, and what it pretends on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from hashlib import blake2b

import pytest

from parrot_backend.core.events import EngineReported
from parrot_backend.core.ids import EngineId
from parrot_backend.engines.base import EngineDied
from parrot_backend.engines.scripted import ScriptedConfig, ScriptedEngine, render
from tests.contract.driver import EngineDriver, constant, open_driver, role, value
from tests.contract.engine_contract import LONG, EngineContract

TIMED = ScriptedConfig(token_s=0.001, prefill_s_per_token=1e-6, max_model_len=1_000)


def make(config: ScriptedConfig | None = None) -> ScriptedEngine:
    return ScriptedEngine(EngineId("scripted"), config)


class TestContract(EngineContract):
    @pytest.fixture
    async def driver(self) -> AsyncIterator[EngineDriver]:
        driver = await open_driver(self.create())
        yield driver
        await driver.close()

    def create(self) -> ScriptedEngine:
        return make(TIMED)


@pytest.fixture
async def driver() -> AsyncIterator[EngineDriver]:
    """An engine without delays."""
    driver = await open_driver(make())
    yield driver
    await driver.close()


async def test_without_delays_a_reply_is_two_outputs(driver: EngineDriver):
    attempt = await driver.run("quick", max_tokens=50)
    assert len(attempt.outputs) == 2
    assert attempt.finished.usage.completion_tokens == len(attempt.finished.text.split())
    assert attempt.finished.usage.engine_s == 0.0


async def test_without_delays_an_abort_silences_what_was_not_read(driver: EngineDriver):
    aborted = driver.start("quick")
    driver.engine.abort(aborted.id)
    await driver.run("other")
    assert aborted.outputs == []


async def test_the_reply_holds_the_hash_of_the_prompt(driver: EngineDriver):
    parts = (role("user"), constant("Write "), value("code"))
    attempt = await driver.run(parts, max_tokens=1)
    prompt_hash = blake2b(render(parts).encode()).hexdigest()[:12]
    assert attempt.finished.text == prompt_hash


async def test_sampling_changes_the_words_and_limits_only_cut_them(driver: EngineDriver):
    whole = await driver.run("words", max_tokens=100, seed=1)
    other = await driver.run("words", max_tokens=100, seed=2)
    cut = await driver.run("words", max_tokens=5, seed=1)
    assert whole.finished.text != other.finished.text
    assert whole.finished.text.startswith(cut.finished.text)
    assert whole.finished.finish_reason == "stop"
    assert cut.finished.finish_reason == "length"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((), ""),
        ((constant("\nA "), value("b")), "\nA b"),
        (
            (role("system"), constant("S"), role("user"), constant("U "), value("v")),
            "<|system|>S\n<|user|>U v",
        ),
        ((role("user"), constant("U"), role("assistant")), "<|user|>U"),
        ((role("user"), constant("U"), role("assistant"), value("A")), "<|user|>U\n<|assistant|>A"),
    ],
)
def test_render(parts, text):
    assert render(parts) == text


class TestPrefixCache:
    SYSTEM = constant("one two three four five six seven eight nine ten")

    async def test_prefixes_are_shared_at_part_boundaries(self, driver: EngineDriver):
        first = await driver.run((self.SYSTEM, value("a b")))
        second = await driver.run((self.SYSTEM, value("c d")))
        assert first.finished.usage.cached_tokens == 0
        assert second.finished.usage.cached_tokens == 10

    async def test_the_last_token_is_never_cached(self, driver: EngineDriver):
        await driver.run((self.SYSTEM,))
        again = await driver.run((self.SYSTEM,))
        assert again.finished.usage.cached_tokens == 9

    async def test_generated_text_is_cached(self, driver: EngineDriver):
        first = await driver.run((self.SYSTEM,), max_tokens=4)
        second = await driver.run((self.SYSTEM, value(first.finished.text), constant(" go on")))
        assert second.finished.usage.cached_tokens == 14

    async def test_salts_keep_prefixes_apart(self, driver: EngineDriver):
        await driver.run((self.SYSTEM, value("x")), cache_salt="a")
        other = await driver.run((self.SYSTEM, value("y")), cache_salt="b")
        same = await driver.run((self.SYSTEM, value("z")), cache_salt="a")
        assert other.finished.usage.cached_tokens == 0
        assert same.finished.usage.cached_tokens == 10

    async def test_it_can_be_switched_off(self):
        driver = await open_driver(make(ScriptedConfig(has_prefix_cache=False)))
        await driver.run((self.SYSTEM, value("a")))
        again = await driver.run((self.SYSTEM, value("b")))
        await driver.close()
        assert again.finished.usage.cached_tokens == 0

    async def test_it_saves_prefill_time(self):
        driver = await open_driver(make(ScriptedConfig(prefill_s_per_token=0.01)))
        cold = await driver.run((self.SYSTEM, value("a")))
        warm = await driver.run((self.SYSTEM, value("b")))
        await driver.close()
        cold_s, warm_s = cold.finished.usage.engine_s, warm.finished.usage.engine_s
        assert cold_s is not None
        assert warm_s is not None
        assert cold_s >= 0.11
        assert 0.01 <= warm_s < 0.06


async def test_time_per_token_is_kept():
    driver = await open_driver(make(ScriptedConfig(token_s=0.01)))
    attempt = await driver.run("slow", max_tokens=20, ignore_eos=True)
    await driver.close()
    engine_s = attempt.finished.usage.engine_s
    assert engine_s is not None
    assert 0.2 <= engine_s < 0.4


async def test_no_more_than_max_requests_run():
    driver = await open_driver(make(ScriptedConfig(token_s=0.01, max_requests=2)))
    attempts = [driver.start(f"n{i}", max_tokens=3, ignore_eos=True) for i in range(5)]
    await driver.first_output(attempts[0])
    load = driver.engine.load()
    await driver.terminal(*attempts)
    await driver.close()
    assert (load.running, load.waiting) == (2, 3)
    assert load.kv_usage > 0


class TestQuiet:
    async def test_it_gives_signs_of_life_while_it_generates(self):
        driver = await open_driver(make(ScriptedConfig(token_s=0.1)))
        attempt = driver.start("slow", hints={"quiet": True}, max_tokens=20, ignore_eos=True)
        await driver.told(lambda reports: len(reports) >= 2)
        assert attempt.outputs == []
        await driver.terminal(attempt)
        await driver.close()
        assert set(driver.reports) == {EngineReported(driver.info.engine)}
        assert len(driver.reports) <= 5

    async def test_it_gives_none_when_it_hangs(self):
        engine = make(ScriptedConfig(token_s=0.01))
        driver = await open_driver(engine)
        driver.start("slow", hints={"quiet": True}, max_tokens=400, ignore_eos=True)
        await driver.told(bool)
        engine.hang()
        told = len(driver.reports)
        await asyncio.sleep(1.0)
        await driver.close()
        assert len(driver.reports) <= told + 1


class TestFaults:
    async def test_fail_on(self):
        driver = await open_driver(make(ScriptedConfig(fail_on="poison", fail_is_retryable=True)))
        failed = await driver.run("a poisoned prompt")
        fine = await driver.run("a prompt")
        await driver.close()
        assert failed.failed.code == "engine_failed"
        assert failed.failed.is_retryable
        assert fine.finished.text

    async def test_die_raises_after_what_was_said(self):
        engine = make()
        driver = await open_driver(engine)
        attempt = driver.start("last words")
        engine.die("out of memory")
        error = await driver.ended()
        await engine.close()
        assert isinstance(error, EngineDied)
        assert str(error) == "out of memory"
        assert attempt.finished.text

    @pytest.mark.parametrize("config", [ScriptedConfig(), TIMED])
    async def test_hang_says_no_more(self, config: ScriptedConfig):
        engine = make(config)
        driver = await open_driver(engine)
        before = driver.start("before", **LONG)
        await driver.first_output(before)
        engine.hang()
        # What was said before the hang may still be on its way.
        await asyncio.sleep(0.1)
        said = len(before.outputs)
        after = driver.start("after")
        refused = driver.start("refused", model="no-such-model")
        await asyncio.sleep(0.1)
        assert len(before.outputs) == said
        assert after.outputs == refused.outputs == []
        await asyncio.wait_for(driver.close(), 30)


async def test_without_delays_it_is_cheap(driver: EngineDriver):
    system = constant("You are a helpful assistant. " * 200)
    # Of this process alone: the machine may have other things to do.
    start_s = time.process_time()
    attempts = [driver.start((system, value(f"question {i}"))) for i in range(500)]
    took_s = time.process_time() - start_s
    await driver.terminal(*attempts)
    # About 40 us; an accidental sleep, task or second pass over the prompt costs far more.
    assert took_s / 500 < 0.001
