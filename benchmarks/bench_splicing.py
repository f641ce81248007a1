"""Calls with several outputs: the engine goes on by itself, or the server sends the next output.

One call has several outputs with a little text between. Unspliced, each output goes to the server,
which resolves the next prompt and sends it; spliced, the engine has the next request already and
puts the output in. Both variants alternate in one run, and their values are checked to be equal.
The bound is the time that the engine itself reports for all outputs, without any way between.

    python -m benchmarks.bench_splicing [--outputs 8] [--tokens 8 32] [--repeat 15] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections.abc import Sequence

from benchmarks.common import Cell, append_rows, cells, shown, spread
from benchmarks.engine_lab import alternate, shared_arguments, tiny_config, words
from benchmarks.server_lab import LabServer, call, servers
from parrot_backend.server.config import ServerSettings

VARIANTS = ("unspliced", "spliced")

#: Time of a call, what the engine reports of it, and the values.
Trial = tuple[float, float, list[str]]


async def trial(server: LabServer, arguments: argparse.Namespace, tokens: int, seed: int) -> Trial:
    """Run one call on an empty cache."""
    texts = [f" Step {i}: go on from here. {{{{output:a{i}}}}}" for i in range(arguments.outputs)]
    node = call("c", words(200, seed) + "".join(texts), tokens)
    names = [f"a{i}" for i in range(arguments.outputs)]
    begin_s = time.perf_counter()
    session = await server.submit([node], names)
    time_s = time.perf_counter() - begin_s
    values = [
        (await server.client.get(f"/v1/variables/{session}.{name}")).json()["value"]
        for name in names
    ]
    views = await server.end(session)
    engine_s = sum(view["finished_s"] - view["first_token_s"] for view in views)
    await server.forget()
    return time_s, engine_s, values


async def run(arguments: argparse.Namespace) -> list[dict[str, Cell]]:
    """Measure both variants for all lengths."""
    trials: dict[tuple[int, str], list[Trial]] = {
        key: [] for key in itertools.product(arguments.tokens, VARIANTS)
    }
    async with servers(
        spliced=(tiny_config(), ServerSettings(splice=True)),
        unspliced=(tiny_config(), ServerSettings(splice=False)),
    ) as labs:
        for lab in labs.values():
            await trial(lab, arguments, 8, -1)
        for tokens in arguments.tokens:
            for number, variant in enumerate(alternate(VARIANTS, arguments.repeat)):
                seed = number // len(VARIANTS)
                trials[tokens, variant].append(await trial(labs[variant], arguments, tokens, seed))
    for tokens in arguments.tokens:
        for spliced, unspliced in zip(
            trials[tokens, "spliced"], trials[tokens, "unspliced"], strict=True
        ):
            assert spliced[2] == unspliced[2], "splicing changed a value"
    return [
        row_of(tokens, variant, found, arguments) for (tokens, variant), found in trials.items()
    ]


def row_of(
    tokens: int, variant: str, trials: Sequence[Trial], arguments: argparse.Namespace
) -> dict[str, Cell]:
    """Return medians over trials; per output beyond the engine's own decoding time."""
    between = [(time_s - engine_s) / arguments.outputs for time_s, engine_s, _ in trials]
    return {
        "variant": variant,
        "outputs": arguments.outputs,
        "tokens": tokens,
        "trials": len(trials),
        **cells("call_ms", spread([time_s * 1e3 for time_s, _, _ in trials])),
        **cells("between_ms", spread([value * 1e3 for value in between])),
    }


def show(rows: Sequence[dict[str, Cell]]) -> None:
    """Print medians, and how many times less than unspliced each is."""
    measured = ("call_ms", "between_ms")
    print(f"{'':>20}" + "".join(f"{name:>32}" for name in measured))
    for row in rows:
        base = next(r for r in rows if (r["tokens"], r["variant"]) == (row["tokens"], "unspliced"))
        values = "".join(shown(row, base, name) for name in measured)
        print(f"{row['tokens']:>6} {row['variant']:>13}{values}")


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--outputs", type=int, default=8)
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 32])
    shared_arguments(parser, repeat=15)
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments))
    show(rows)
    if arguments.save:
        print(f"rows appended to {append_rows('splicing', rows)}")


if __name__ == "__main__":
    main()
