"""Chains with long constant prefixes: prompts computed while the value they wait for is made.

Each step of a chain has a long prompt of its own, the same for nobody else, and at its end the
value of the step before. In scenario ``calls`` that value comes from the call before; in ``tools``
the client computes it from there, for some time in which the engine has nothing to do. Variants
alternate: vLLM as it is, Parrot without early fill, Parrot with it. Measured are the time to the
first token of each dependent step, from when its inputs are there, and the whole chain. The bound
of the former is a step whose prompt is in the cache, measured in the same run by running a chain
again.

    python -m benchmarks.bench_early_fill [--steps 5] [--words 1200] [--tokens 48]
        [--tool-s 0.1] [--chains 1] [--repeat 7] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.engine_lab import alternate, shared_arguments, tiny_config, words
from benchmarks.server_lab import LabServer, call, servers
from parrot_backend.server.config import ServerSettings

SCENARIOS = ("calls", "tools")

#: Variant -> server, and whether the prompts are in the cache already.
VARIANTS: dict[str, tuple[str, bool]] = {
    "vllm": ("stock", False),
    "no fill": ("unfilled", False),
    "fill": ("filled", False),
    "cached": ("unfilled", True),
}


@dataclass(slots=True)
class Trial:
    """Times of all chains of one trial."""

    ttfts_s: list[float] = field(default_factory=list)
    chains_s: list[float] = field(default_factory=list)


async def chain(
    server: LabServer, arguments: argparse.Namespace, scenario: str, seed: object, result: Trial
) -> None:
    """Run a chain and add its times."""
    has_tools = scenario == "tools"
    nodes, variables = [], [{"name": "x0", "value": "Begin."}]
    for i in range(arguments.steps):
        value = f"x{i}" if has_tools or i == 0 else f"a{i - 1}"
        text = words(arguments.words, (seed, i))
        prompt = f"{text}\nSo far: {{{{input:{value}}}}} {{{{output:a{i}}}}}"
        nodes.append(call(f"c{i}", prompt, arguments.tokens))
        if has_tools and i:
            variables.append({"name": f"x{i}"})
    begin_s = time.perf_counter()
    session = await server.submit(
        nodes, [f"a{arguments.steps - 1}"], variables=variables, wait=not has_tools
    )
    if has_tools:
        for i in range(1, arguments.steps):
            await server.wait(session, f"a{i - 1}")
            await asyncio.sleep(arguments.tool_s)
            await server.set(session, f"x{i}", words(20, (seed, i, "tool")))
        await server.wait(session, f"a{arguments.steps - 1}")
    result.chains_s.append(time.perf_counter() - begin_s)
    views = await server.end(session)
    result.ttfts_s += [view["first_token_s"] - view["ready_s"] for view in views[1:]]


async def trial(
    server: LabServer, arguments: argparse.Namespace, scenario: str, seed: int, is_cached: bool
) -> Trial:
    """Run chains side by side; with ``is_cached``, run the same before, unmeasured."""
    result = Trial()
    for into in ([Trial()] if is_cached else []) + [result]:
        await asyncio.gather(
            *(
                chain(server, arguments, scenario, (scenario, seed, number), into)
                for number in range(arguments.chains)
            )
        )
    await server.forget()
    return result


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure all variants in all scenarios."""
    names = [f"{s}: {v}" for s, v in itertools.product(SCENARIOS, VARIANTS)]
    trials: dict[str, list[Trial]] = {name: [] for name in names}
    filled, unfilled = ServerSettings(early_fill=True), ServerSettings(early_fill=False)
    async with servers(
        stock=(tiny_config(scheduler="vllm"), unfilled),
        unfilled=(tiny_config(), unfilled),
        filled=(tiny_config(), filled),
    ) as labs:
        for lab in labs.values():
            await trial(lab, arguments, "calls", -1, is_cached=False)
        for number, name in enumerate(alternate(names, arguments.repeat)):
            scenario, variant = name.split(": ")
            server, is_cached = VARIANTS[variant]
            seed = number // len(names)
            trials[name].append(await trial(labs[server], arguments, scenario, seed, is_cached))
    return [row_of(name, found, arguments) for name, found in trials.items()]


def row_of(name: str, trials: Sequence[Trial], arguments: argparse.Namespace) -> dict[str, Cell]:
    """Return medians over all trials."""
    scenario, variant = name.split(": ")
    ttft = spread([value * 1e3 for each in trials for value in each.ttfts_s])
    whole = spread([value for each in trials for value in each.chains_s])
    return {
        "scenario": scenario,
        "variant": variant,
        "steps": arguments.steps,
        "words": arguments.words,
        "tokens": arguments.tokens,
        "tool_s": arguments.tool_s,
        "chains": arguments.chains,
        "trials": len(trials),
        **cells("ttft_ms", ttft),
        **cells("chain_s", whole),
    }


def show(rows: Sequence[dict[str, Cell]]) -> None:
    """Print medians, and how many times better than no early fill each is."""
    measured = ("ttft_ms", "chain_s")
    print(f"{'':>15}" + "".join(f"{name:>32}" for name in measured))
    for row in rows:
        base = next(
            r for r in rows if (r["scenario"], r["variant"]) == (row["scenario"], "no fill")
        )
        values = "".join(shown(row, base, name) for name in measured)
        print(f"{row['scenario']:>6} {row['variant']:>8}{values}")


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--words", type=int, default=1200)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--tool-s", type=float, default=0.1)
    parser.add_argument("--chains", type=int, default=1)
    shared_arguments(parser, repeat=7)
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    show(rows)
    if arguments.save:
        print(f"rows appended to {append_rows('early_fill', rows)}")


if __name__ == "__main__":
    main()
