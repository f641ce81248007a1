"""Every way into a runnable, as a function of a chain and its inputs that returns one value."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from tests.integrations.langchain.recording import plain

Chain = Runnable[Any, Any]
Enter = Callable[[Chain, list[str], RunnableConfig], Any]


def _sum(chunks: list[Any]) -> Any:
    total = chunks[0] if chunks else None
    for chunk in chunks[1:]:
        total = total + chunk
    return total


def _invoke(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    return chain.invoke(inputs[0], config)


def _ainvoke(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    return asyncio.run(chain.ainvoke(inputs[0], config))


def _stream(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    return _sum(list(chain.stream(inputs[0], config)))


def _astream(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    async def run() -> Any:
        return _sum([chunk async for chunk in chain.astream(inputs[0], config)])

    return asyncio.run(run())


def _batch(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    return chain.batch(inputs, config, return_exceptions=True)


def _abatch(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    return asyncio.run(chain.abatch(inputs, config, return_exceptions=True))


def _as_completed(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    found = chain.batch_as_completed(inputs, config, return_exceptions=True)
    return [item for _, item in sorted(found, key=lambda pair: pair[0])]


def _aas_completed(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    async def run() -> Any:
        found = chain.abatch_as_completed(inputs, config, return_exceptions=True)
        return [item for _, item in sorted([p async for p in found], key=lambda pair: pair[0])]

    return asyncio.run(run())


def _transform(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    half = len(inputs[0]) // 2
    return _sum(list(chain.transform(iter([inputs[0][:half], inputs[0][half:]]), config)))


def _atransform(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    async def chunks() -> Any:
        half = len(inputs[0]) // 2
        yield inputs[0][:half]
        yield inputs[0][half:]

    async def run() -> Any:
        return _sum([chunk async for chunk in chain.atransform(chunks(), config)])

    return asyncio.run(run())


def _events(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    async def run() -> Any:
        seen: Counter[str] = Counter()
        last = None
        async for event in chain.astream_events(inputs[0], config, version="v2"):
            if not event["event"].endswith("_stream"):
                seen[repr((event["event"], event["name"], sorted(event["tags"])))] += 1
            last = event
        return (sorted(seen.items()), plain(last["data"].get("output")) if last else None)

    return asyncio.run(run())


def _log(chain: Chain, inputs: list[str], config: RunnableConfig) -> Any:
    async def run() -> Any:
        patches = [patch async for patch in chain.astream_log(inputs[0], config)]
        state = _sum(patches).state if patches else {}
        names = sorted((name, log["name"], log["type"]) for name, log in state["logs"].items())
        return (names, plain(state["final_output"]))

    return asyncio.run(run())


ENTRIES: dict[str, Enter] = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "stream": _stream,
    "astream": _astream,
    "batch": _batch,
    "abatch": _abatch,
    "batch_as_completed": _as_completed,
    "abatch_as_completed": _aas_completed,
    "transform": _transform,
    "atransform": _atransform,
    "astream_events": _events,
    "astream_log": _log,
}
#: Those of which an error stops only what comes after it in the same place.
IN_ORDER = frozenset({"invoke"})
BATCHES = frozenset(name for name in ENTRIES if "batch" in name)
