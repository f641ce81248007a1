"""What a step of the engine costs with the plug-in: without hints, with hints, and without it.

A few requests decode side by side for long, on vLLM as it is and on vLLM with the plug-in; with it
once as Parrot sends requests, with hints, and once as anybody else's, without. Variants alternate
in one run. Requests without hints are to take no longer than on vLLM as it is.

    python -m benchmarks.bench_plugin_overhead [--requests 4] [--tokens 400] [--repeat 15] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence

from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.engine_lab import LabEngine, alternate, engines, shared_arguments, tiny_config
from parrot_backend.core.sampling import Sampling
from parrot_backend.vllm_compat import client as vllm_client

#: Variant -> engine, and hints.
VARIANTS: dict[str, tuple[str, dict[str, str] | None]] = {
    "vllm": ("stock", None),
    "no hints": ("plugin", None),
    "hints": ("plugin", {"class": "throughput", "tenant": "t"}),
}


async def trial(lab: LabEngine, arguments: argparse.Namespace, name: str) -> float:
    """Return the time of a step, in seconds."""
    _, hints = VARIANTS[name.partition("/")[0]]
    sampling = Sampling(max_tokens=arguments.tokens, temperature=0.0, ignore_eos=True)

    async def one(number: int) -> None:
        ids = [(7 * number + i) % 500 + 10 for i in range(32)]
        steps = vllm_client.generate(
            lab.engine.client,
            f"{name}/{number}",
            ids,
            sampling,
            arguments.tokens,
            0,
            None,
            None if hints is None else {**hints, "name": f"{name}/{number}"},
        )
        async for _ in steps:
            pass

    begin_s = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(arguments.requests)))
    return (time.perf_counter() - begin_s) / arguments.tokens


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all variants."""
    steps_s: dict[str, list[float]] = {name: [] for name in VARIANTS}
    async with engines(stock=tiny_config(scheduler="vllm"), plugin=tiny_config()) as labs:
        for name, (engine, _) in VARIANTS.items():
            await trial(labs[engine], arguments, f"{name}/warm")
        for number, name in enumerate(alternate(list(VARIANTS), arguments.repeat)):
            lab = labs[VARIANTS[name][0]]
            steps_s[name].append(await trial(lab, arguments, f"{name}/{number}"))
    return [
        {
            "variant": name,
            "requests": arguments.requests,
            "tokens": arguments.tokens,
            "trials": len(found),
            **cells("step_ms", spread([value * 1e3 for value in found])),
        }
        for name, found in steps_s.items()
    ]


def show(rows: Sequence[dict[str, Cell]]) -> None:
    """Print medians, and how many times less than vLLM each is."""
    for row in rows:
        print(f"{row['variant']:>10}{shown(row, rows[0], 'step_ms')}")


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=400)
    shared_arguments(parser, repeat=15)
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    show(rows)
    if arguments.save:
        print(f"rows appended to {append_rows('plugin_overhead', rows)}")


if __name__ == "__main__":
    main()
