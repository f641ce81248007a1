"""Runs an example twice, as it is and planned, and shows both; what all examples here share.

parrot serve                                           # in another terminal
python examples/semantic_kernel/nested_chat.py --round-trip-ms 250
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.filters import FilterTypes

from parrot_backend.demo.delaying_proxy import DelayingProxy, delaying_proxy
from parrot_integrations.planning.background import background
from parrot_integrations.semantic_kernel import (
    ParrotChatCompletion,
    ParrotChatPromptExecutionSettings,
    ParrotPlanFilter,
    watch_plans,
)

Program = Callable[[], Awaitable[str]]
#: Adds a program's functions to a kernel; the settings are those of its calls.
Build = Callable[[Kernel, PromptExecutionSettings], Program]


def main(build: Build, build_planned: Build | None = None) -> None:
    """Run a program both ways and print what came of it.

    Args:
        build: Makes the program for a kernel.
        build_planned: Makes the planned one; None takes the same, and only the filter differs.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", default="http://127.0.0.1:8642")
    parser.add_argument(
        "--round-trip-ms", type=float, default=0, help="a slow network to the server"
    )
    parser.add_argument("--tokens", type=int, default=32, help="longest reply")
    arguments = parser.parse_args()
    settings = ParrotChatPromptExecutionSettings(temperature=0, max_tokens=arguments.tokens)
    with delaying_proxy(arguments.base_url, arguments.round_trip_ms / 1000) as network:
        service = ParrotChatCompletion(host=network.url)
        plain = build(Kernel(services=service), settings)
        kernel = Kernel(services=service)
        kernel.add_filter(FilterTypes.FUNCTION_INVOCATION, ParrotPlanFilter())
        planned = (build_planned or build)(kernel, settings)
        asyncio.run(compare(plain, planned, network))
        background().settle()


async def compare(plain: Program, planned: Program, network: DelayingProxy) -> None:
    """Run both and print texts, times and requests."""
    await plain()  # what both runs share is in the engine's cache afterwards
    plain_text, plain_s, plain_trips = await timed(plain, network)
    with watch_plans() as plans:
        text, planned_s, trips = await timed(planned, network)
    print(text, end="\n\n")
    for plan in plans:
        print(plan.report(), end="\n\n")
    print(f"call by call {plain_s:.3f} s, {plain_trips} requests")
    print(f"planned      {planned_s:.3f} s, {trips} requests, {plain_s / planned_s:.2f} x")
    # Planned prompts are tokenised in pieces: see the limits in docs/semantic_kernel.md.
    print("the same text" if plain_text == text else "another text: the tokens differ at a seam")


async def timed(program: Program, network: DelayingProxy) -> tuple[str, float, int]:
    """Return the text of a run, its time in seconds, and how many requests it made."""
    start_s, trips = time.perf_counter(), network.num_requests
    text = await program()
    return text, time.perf_counter() - start_s, network.num_requests - trips


if __name__ == "__main__":
    raise SystemExit("run one of the examples beside this file")
