"""What every engine does. A test class inherits ``EngineContract`` and says how to make one.

The engine of most tests is the fixture ``driver``. Tests that end an engine make their own with
``create``, because a real one takes seconds to open.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from parrot_backend.core.chat import ResponseFormat
from parrot_backend.core.criteria import UNANNOTATED, Objective, ObjectiveClass
from parrot_backend.core.discovery.beginnings import Beginning
from parrot_backend.core.events import TokensGenerated
from parrot_backend.core.ids import AttemptId
from parrot_backend.core.prefix import PrefixBoundary, prefix_chain
from parrot_backend.engines.base import Engine
from tests.contract.chat_contract import ChatContract
from tests.contract.driver import (
    EngineDriver,
    check_same,
    constant,
    open_driver,
    role,
    value,
)

#: A reply so long that a test has time to do something meanwhile.
LONG: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True}

QUIET: dict[str, Any] = {"quiet": True}
FREE: dict[str, Any] = {"ignore_eos": True}


class EngineContract(ChatContract):
    """The suite; subclasses define ``create`` and the fixture ``driver``."""

    #: Whether the engine tells its own time.
    tells_time = True
    #: Whether ``num_tokens`` of each piece is exact.
    counts_exactly = True
    #: Whether it says tokens of quiet requests, too.
    talks_always = False

    def create(self) -> Engine:
        """Return an engine like the one of ``driver``, not open yet."""
        raise NotImplementedError

    # --- one request -------------------------------------------------------------------------

    async def test_info_is_usable(self, driver: EngineDriver):
        info = driver.info
        assert info.models
        assert info.max_requests >= 1
        assert info.max_model_len > 1
        assert 1 <= info.latency_capacity_tokens <= info.capacity_tokens

    async def test_text_comes_before_one_terminal_output(self, driver: EngineDriver):
        attempt = await driver.run("tell me of the sea")
        await asyncio.sleep(0.05)
        *said, last = attempt.outputs
        assert said
        assert all(isinstance(output, TokensGenerated) for output in said)
        assert attempt.terminals == [last]
        assert attempt.streamed == attempt.finished.text

    async def test_usage_counts_tokens(self, driver: EngineDriver):
        attempt = await driver.run("count these words please")
        usage = attempt.finished.usage
        assert usage.prompt_tokens >= 4
        assert 1 <= usage.completion_tokens <= 12
        assert 0 <= usage.cached_tokens < usage.prompt_tokens
        if self.counts_exactly:
            told = sum(o.num_tokens for o in attempt.outputs if isinstance(o, TokensGenerated))
            assert told <= usage.completion_tokens
        if self.tells_time:
            assert usage.engine_s is not None
            assert 0 <= usage.engine_s < 30

    async def test_greedy_is_deterministic(self, driver: EngineDriver):
        first = await driver.run("the same again")
        second = await driver.run("the same again")
        assert first.finished.text == second.finished.text

    async def test_a_seed_is_deterministic(self, driver: EngineDriver):
        drawn = [
            await driver.run("draw", temperature=1.0, seed=seed, ignore_eos=True)
            for seed in (7, 7, 8)
        ]
        texts = [attempt.finished.text for attempt in drawn]
        assert texts[0] == texts[1] != texts[2]

    async def test_another_prompt_gives_another_text(self, driver: EngineDriver):
        texts = {
            (await driver.run(prompt, ignore_eos=True)).finished.text
            for prompt in ("of rivers and hills", "a snake game in python", "HTTP status 404")
        }
        assert len(texts) == 3

    async def test_max_tokens_are_reached_and_not_passed(self, driver: EngineDriver):
        attempt = await driver.run("go on", max_tokens=9, ignore_eos=True)
        assert attempt.finished.finish_reason == "length"
        assert attempt.finished.usage.completion_tokens == 9

    async def test_one_token_is_possible(self, driver: EngineDriver):
        attempt = await driver.run("one", max_tokens=1, ignore_eos=True)
        assert attempt.finished.usage.completion_tokens == 1
        assert attempt.finished.finish_reason == "length"

    async def test_a_stop_string_ends_the_text_before_it(self, driver: EngineDriver):
        free = (await driver.run("stop somewhere", ignore_eos=True)).finished.text
        stop = free[len(free) // 2 :][:4]
        attempt = await driver.run("stop somewhere", ignore_eos=True, stop=("never said", stop))
        assert attempt.finished.text == free[: free.index(stop)]
        assert attempt.streamed == attempt.finished.text
        assert attempt.finished.finish_reason == "stop"

    async def test_min_tokens_are_generated(self, driver: EngineDriver):
        attempt = await driver.run("go on for long", max_tokens=60, min_tokens=50)
        assert attempt.finished.usage.completion_tokens >= 50

    async def test_a_chat_is_answered(self, driver: EngineDriver):
        chat = (role("system"), constant("Be brief."), role("user"), value("Hi"))
        plain = await driver.run(chat)
        opened = await driver.run((*chat, role("assistant")))
        begun = await driver.run((*chat, role("assistant"), constant("Dear reader,")))
        assert plain.finished.text == opened.finished.text
        assert plain.finished.text != begun.finished.text

    # --- quiet -------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "sampling",
        [
            {},
            {"ignore_eos": True, "max_tokens": 40},
            {"ignore_eos": True, "max_tokens": 1},
            {"ignore_eos": True, "logprobs": 2},
            {"ignore_eos": True, "temperature": 1.0, "seed": 3},
            {"response_format": ResponseFormat("choice", '["left", "right"]'), "logprobs": 0},
        ],
        ids=lambda sampling: "-".join(sampling) or "plain",
    )
    async def test_a_quiet_request_gives_the_same(
        self, driver: EngineDriver, sampling: dict[str, Any]
    ):
        talking = await driver.run("tell me of the sea", **sampling)
        quiet = await driver.run("tell me of the sea", hints=QUIET, **sampling)
        await asyncio.sleep(0.05)
        check_same(quiet, talking)
        assert self.talks_always or quiet.outputs == [quiet.finished]

    async def test_a_quiet_request_stops_where_it_shall(self, driver: EngineDriver):
        free = (await driver.run("stop somewhere", ignore_eos=True)).finished.text
        how = {"ignore_eos": True, "stop": (free[len(free) // 2 :][:4],), "logprobs": 0}
        talking = await driver.run("stop somewhere", **how)
        quiet = await driver.run("stop somewhere", hints=QUIET, **how)
        check_same(quiet, talking)

    async def test_a_quiet_request_tells_its_time(self, driver: EngineDriver):
        usage = (await driver.run("slowly", hints=QUIET, max_tokens=60, **FREE)).finished.usage
        if self.tells_time:
            assert usage.engine_s is not None
            assert usage.decode_s is not None
            assert 0 < usage.decode_s < usage.engine_s

    async def test_an_aborted_quiet_request_says_nothing(self, driver: EngineDriver):
        aborted = driver.start("abort me", hints=QUIET, **LONG)
        await driver.run("meanwhile", max_tokens=4)
        driver.engine.abort(aborted.id)
        await driver.run("something else")
        assert self.talks_always or aborted.outputs == []
        assert aborted.terminals == []
        await driver.engine.drain()
        assert driver.engine.load().running == 0

    async def test_quiet_and_talking_ones_run_together(self, driver: EngineDriver):
        attempts = [
            driver.start(f"number {i // 2} of many", hints={"quiet": bool(i % 2)}, max_tokens=9)
            for i in range(20)
        ]
        await driver.terminal(*attempts)
        for talking, quiet in zip(attempts[::2], attempts[1::2], strict=True):
            check_same(quiet, talking)

    # --- refusals ------------------------------------------------------------------------------

    async def test_the_models_are_served_by_name(self, driver: EngineDriver):
        unnamed = await driver.run("whoever you are")
        named = await driver.run("whoever you are", model=driver.info.models[0])
        assert unnamed.finished.text == named.finished.text

    async def test_an_unknown_model_is_refused(self, driver: EngineDriver):
        attempt = await driver.run("hello", model="no-such-model")
        assert attempt.failed.code == "unknown_model"
        assert "no-such-model" in attempt.failed.message
        assert not attempt.failed.is_retryable

    async def test_a_prompt_that_fills_the_context_is_refused(self, driver: EngineDriver):
        attempt = await driver.run("word " * driver.info.max_model_len, max_tokens=1)
        assert attempt.failed.code == "prompt_too_long"
        assert not attempt.failed.is_retryable

    async def test_output_is_cut_to_the_room_there_is(self, driver: EngineDriver):
        limit = driver.info.max_model_len
        words = "word " * (limit // 2)
        used = (await driver.run(words, max_tokens=1)).finished.usage.prompt_tokens
        attempt = await driver.run(words, max_tokens=limit, ignore_eos=True)
        assert attempt.finished.usage.completion_tokens == limit - used
        assert attempt.finished.finish_reason == "length"
        without = await driver.run(words, max_tokens=None, ignore_eos=True)
        assert without.finished.usage.completion_tokens == limit - used

    # --- aborts --------------------------------------------------------------------------------

    async def test_an_aborted_attempt_says_no_more(self, driver: EngineDriver):
        aborted = driver.start("abort me", **LONG)
        other = driver.start("but not me")
        await driver.first_output(aborted)
        driver.engine.abort(aborted.id)
        said = len(aborted.outputs)
        await driver.terminal(other)
        await asyncio.sleep(0.2)
        assert len(aborted.outputs) == said
        assert aborted.terminals == []
        assert driver.engine.load().running == 0

    async def test_an_attempt_aborted_at_once_says_nothing(self, driver: EngineDriver):
        aborted = driver.start("abort me at once")
        driver.engine.abort(aborted.id)
        await driver.run("something else")
        assert aborted.outputs == []

    async def test_other_aborts_are_ignored(self, driver: EngineDriver):
        driver.engine.abort(AttemptId("s.unknown#0~0"))
        done = await driver.run("done before")
        driver.engine.abort(done.id)
        assert (await driver.run("still alive")).finished.text

    # --- hints and what is kept ----------------------------------------------------------------

    async def test_other_hints_change_no_text(self, driver: EngineDriver):
        alone = await driver.run("change my hints", ignore_eos=True)
        attempt = driver.start("change my hints", ignore_eos=True)
        for objective in (Objective(kind) for kind in ObjectiveClass):
            driver.engine.update(attempt.id, objective, 3)
        await driver.terminal(attempt)
        driver.engine.update(attempt.id, UNANNOTATED, 0)
        assert attempt.finished.text == alone.finished.text

    async def test_other_hints_for_nobody_are_ignored(self, driver: EngineDriver):
        driver.engine.update(AttemptId("s.unknown#0~0"), UNANNOTATED, 0)
        aborted = driver.start("abort me", **LONG)
        driver.engine.abort(aborted.id)
        driver.engine.update(aborted.id, UNANNOTATED, 0)
        assert (await driver.run("still alive")).finished.text
        assert aborted.outputs == []

    async def test_keeping_prefixes_changes_no_text(self, driver: EngineDriver):
        prompt = (constant("keep this " * 100), value("and answer"))
        alone = await driver.run(prompt, ignore_eos=True)
        boundaries = prefix_chain("seed", prompt, 0.25)
        keys = tuple(boundary.hash for boundary in boundaries)
        hints = {"prefixes": boundaries, "retain": keys, "tenant": "t", "remaining": 2}
        kept = await driver.run(prompt, hints=hints, ignore_eos=True)
        driver.engine.retain(keys[0], None)
        driver.engine.retain(b"its output, too", kept.id)
        again = await driver.run(prompt, hints=hints, ignore_eos=True)
        driver.engine.release((*keys, b"its output, too"))
        assert kept.finished.text == again.finished.text == alone.finished.text
        if not driver.info.keeps_prefixes:
            assert driver.engine.load().pinned_tokens == 0

    async def test_keeping_a_beginning_inside_of_a_part_changes_no_text(self, driver: EngineDriver):
        prompt = (role("user"), constant("keep this " * 100 + "and answer"))
        alone = await driver.run(prompt, ignore_eos=True)
        places = (0, 4, 500, len(prompt[1].text))
        inside = tuple(Beginning(PrefixBoundary(b"%d" % at, at), 1, at) for at in places)
        hints = {
            "prefixes": prefix_chain("seed", prompt, 0.25),
            "beginnings": inside,
            "retain": (b"500", b"4"),
        }
        kept = await driver.run(prompt, hints=hints, ignore_eos=True)
        driver.engine.release((b"500",))
        again = await driver.run(prompt, hints=hints, ignore_eos=True)
        driver.engine.release((b"4", b"500"))
        assert kept.finished.text == again.finished.text == alone.finished.text

    async def test_keys_that_nobody_knows_are_ignored(self, driver: EngineDriver):
        driver.engine.retain(b"unknown", None)
        driver.engine.retain(b"unknown", AttemptId("s.unknown#0~0"))
        driver.engine.release([b"unknown", b"never kept"])
        driver.engine.release([])
        assert (await driver.run("still alive")).finished.text

    # --- many ----------------------------------------------------------------------------------

    async def test_many_at_once_end_once_each(self, driver: EngineDriver):
        attempts = [driver.start(f"number {i} of many", max_tokens=6) for i in range(100)]
        await driver.terminal(*attempts)
        await driver.engine.drain()
        assert [len(attempt.terminals) for attempt in attempts] == [1] * 100
        assert all(attempt.streamed == attempt.finished.text for attempt in attempts)
        assert driver.strays == []

    async def test_drain_returns_when_nothing_runs(self, driver: EngineDriver):
        await asyncio.wait_for(driver.engine.drain(), 30)
        attempts = [driver.start(f"drain {i}", max_tokens=20) for i in range(5)]
        await driver.engine.drain()
        await driver.terminal(*attempts)
        assert driver.engine.load().running == 0

    async def test_load_counts_up(self, driver: EngineDriver):
        before = driver.engine.load()
        attempts = [await driver.run(f"load {i}") for i in range(3)]
        after = driver.engine.load()
        usages = [attempt.finished.usage for attempt in attempts]
        prompt_tokens = after.prompt_tokens - before.prompt_tokens
        generated = after.generated_tokens - before.generated_tokens
        assert prompt_tokens == sum(usage.prompt_tokens for usage in usages)
        assert generated == sum(usage.completion_tokens for usage in usages)
        cached = after.cached_tokens - before.cached_tokens
        assert cached == sum(usage.cached_tokens for usage in usages)

    async def test_load_shows_what_runs(self, driver: EngineDriver):
        attempts = [driver.start(f"busy {i}", **LONG) for i in range(2)]
        for attempt in attempts:
            await driver.first_output(attempt)
        busy = driver.engine.load()
        for attempt in attempts:
            driver.engine.abort(attempt.id)
        assert busy.running + busy.waiting == 2
        assert 0 <= busy.kv_usage <= 1

    # --- the end -------------------------------------------------------------------------------

    async def test_close_ends_everything(self):
        driver = await open_driver(self.create())
        running = driver.start("cut off", **LONG)
        await driver.first_output(running)
        await asyncio.gather(driver.engine.close(), driver.engine.close())
        await driver.engine.close()
        assert await driver.ended() is None
        assert running.terminals == []
        said = len(running.outputs)
        driver.engine.abort(running.id)
        driver.engine.update(running.id, UNANNOTATED, 0)
        driver.engine.retain(b"key", running.id)
        driver.engine.release([b"key"])
        await asyncio.sleep(0.1)
        assert len(running.outputs) == said

    async def test_an_engine_that_was_never_opened_closes(self):
        await asyncio.wait_for(self.create().close(), 30)
