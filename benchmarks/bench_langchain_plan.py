"""What `as_parrot` costs and saves: planning a chain, and running it plainly and planned.

The server runs in this process with an engine that answers at once, so that what is seen is the
overhead; how much time a plan saves where engines take theirs is for `bench_chain`. Each chain is
planned without a server, then run both ways in turn.

    python -m benchmarks.bench_langchain_plan [--repeats 15] [--batch 10000] [--save]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from benchmarks.common import Cell, append_rows, cells, spread
from parrot_integrations.langchain import ChatParrot, as_parrot, join_list
from tests.helpers.scripted_server import ScriptedServer, scripted_server

Chain = Runnable[Any, Any]


def ask(url: str, template: str) -> Chain:
    chat = ChatParrot(base_url=url, temperature=0, max_tokens=4)
    return ChatPromptTemplate.from_template(template) | chat | StrOutputParser()


def pipeline(url: str, num_calls: int) -> Chain:
    """Steps one after the other."""
    chain = ask(url, "Step 0: {x}")
    for number in range(1, num_calls):
        chain = chain | ask(url, f"Step {number}: {{x}}")
    return chain


def map_reduce(url: str) -> Chain:
    """One call for each document, and one for all."""
    return ask(url, "Summarise {x}").map() | join_list() | ask(url, "Put together {x}")


def times_s(repeats: int, work: Callable[[], object]) -> list[float]:
    found = []
    work()
    for _ in range(repeats):
        gc.collect()
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return found


def measure(
    server: ScriptedServer, name: str, num_calls: int, chain: Chain, value: Any, repeats: int
) -> dict[str, Cell]:
    """Return the row of one chain."""
    planned = as_parrot(chain)
    server.requests.clear()
    chain.invoke(value)
    plain_submits = server.num_submits
    server.requests.clear()
    planned.invoke(value)
    planned_submits = server.num_submits
    planning = spread([s * 1e3 for s in times_s(repeats, lambda: planned.plan(value))])
    plain = spread([s * 1e3 for s in times_s(repeats, lambda: chain.invoke(value))])
    whole = spread([s * 1e3 for s in times_s(repeats, lambda: planned.invoke(value))])
    print(
        f"{name:<12} {num_calls:>6} calls: planning {planning} ms; plain {plain} ms in "
        f"{plain_submits} submits; planned {whole} ms in {planned_submits}"
    )
    return {
        "program": name,
        "calls": num_calls,
        "plain_submits": plain_submits,
        "planned_submits": planned_submits,
        **cells("planning_ms", planning),
        **cells("plain_ms", plain),
        **cells("planned_ms", whole),
    }


def measure_batch(server: ScriptedServer, num_inputs: int, repeats: int) -> dict[str, Cell]:
    """Return the row of a large batch of a chain of one call."""
    chain = ask(server.url, "Say {x}")
    values = [f"input {i}" for i in range(num_inputs)]
    planned = as_parrot(chain)
    plain = spread([s * 1e3 for s in times_s(repeats, lambda: chain.batch(values))])
    server.requests.clear()
    found = planned.batch(values)
    assert len(found) == num_inputs
    planned_submits = server.num_submits
    whole = spread([s * 1e3 for s in times_s(repeats, lambda: planned.batch(values))])
    print(f"batch        {num_inputs:>6} calls: plain {plain} ms; planned {whole} ms")
    return {
        "program": "batch",
        "calls": num_inputs,
        "plain_submits": None,
        "planned_submits": planned_submits,
        **cells("planning_ms", None),
        **cells("plain_ms", plain),
        **cells("planned_ms", whole),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=10_000, help="inputs of the large batch")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    options = parser.parse_args()
    rows = []
    with scripted_server() as server:
        for num_calls in (1, 10, 100):
            chain = pipeline(server.url, num_calls)
            rows.append(measure(server, "pipeline", num_calls, chain, "bees", options.repeats))
        documents = [f"document {i}" for i in range(99)]
        chain = map_reduce(server.url)
        rows.append(measure(server, "map-reduce", 100, chain, documents, options.repeats))
        if options.batch:
            rows.append(measure_batch(server, options.batch, 1))
    if options.save:
        print(f"saved to {append_rows('langchain_plan', rows)}")


if __name__ == "__main__":
    main()
