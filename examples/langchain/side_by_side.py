"""Runs an example twice, as it is and planned, and shows both; what all examples here share.

parrot serve                                      # in another terminal
python examples/langchain/plan_and_expand.py --round-trip-ms 250
"""

import argparse
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from parrot_backend.demo.blocking_transport import BlockingDelayingTransport
from parrot_integrations import ParrotClient
from parrot_integrations.langchain import ChatParrot, as_parrot, watch_plans
from parrot_integrations.planning.background import background

Build = Callable[[BaseChatModel], Runnable]


def main(build: Build, value: Any, build_planned: Build | None = None) -> None:
    """Run a chain both ways and print what came of it.

    Args:
        build: Makes the chain for a model.
        value: The chain's input.
        build_planned: Makes the planned one; None wraps the chain as a whole.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url", default="http://127.0.0.1:8642")
    parser.add_argument(
        "--round-trip-ms", type=float, default=0, help="a slow network to the server"
    )
    parser.add_argument("--tokens", type=int, default=32, help="longest reply")
    arguments = parser.parse_args()
    network = BlockingDelayingTransport(arguments.round_trip_ms / 1000)
    with closing(ParrotClient(arguments.base_url, transport=network)) as client:
        llm = ChatParrot(client=client, temperature=0, max_tokens=arguments.tokens)
        chain = build(llm)
        parrot = as_parrot(chain) if build_planned is None else build_planned(llm)
        chain.invoke(value)  # what both runs share is in the engine's cache afterwards
        plain, plain_s, plain_trips = timed(chain, value, network)
        with watch_plans() as plans:
            planned, planned_s, planned_trips = timed(parrot, value, network)
        background().settle()
    print(planned, end="\n\n")
    for plan in plans:
        print(plan.report(), end="\n\n")
    print(f"call by call {plain_s:.3f} s, {plain_trips} requests")
    print(f"planned      {planned_s:.3f} s, {planned_trips} requests, {plain_s / planned_s:.2f} x")
    # Planned prompts are tokenised in pieces: see the limits in docs/langchain.md.
    print("the same result" if plain == planned else "another result: the tokens differ at a seam")


def timed(
    chain: Runnable, value: Any, network: BlockingDelayingTransport
) -> tuple[Any, float, int]:
    """Return the result of a run, its time in seconds, and how many requests it made."""
    start_s, trips = time.perf_counter(), network.round_trips
    result = chain.invoke(value)
    return result, time.perf_counter() - start_s, network.round_trips - trips


if __name__ == "__main__":
    raise SystemExit("run one of the examples beside this file")
