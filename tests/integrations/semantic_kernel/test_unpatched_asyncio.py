"""Tests do not see what Semantic Kernel did to asyncio in tests before them."""

from __future__ import annotations

import asyncio

import nest_asyncio  # type: ignore[import-untyped]

from tests.helpers.unpatched_asyncio import unpatched_asyncio


def kinds() -> tuple[object, ...]:
    async def look() -> tuple[object, ...]:
        task = asyncio.current_task()
        return type(task), type(asyncio.get_running_loop().create_future())

    return asyncio.run, asyncio.Task, asyncio.get_event_loop, *asyncio.run(look())


def test_what_is_patched_is_taken_back() -> None:
    before = kinds()
    for _ in range(2):
        with unpatched_asyncio():

            async def nest() -> int:
                nest_asyncio.apply()
                return asyncio.run(asyncio.sleep(0, 7))

            assert asyncio.run(nest()) == 7
            assert asyncio.Task is not before[1]
        assert kinds() == before
