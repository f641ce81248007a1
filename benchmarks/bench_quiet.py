"""What quiet requests save: those whose text nobody reads while it is generated.

Claim: with one submit of many calls at once, whose client waits for the values, the server process
needs less processor time when the engine tells each text at its end than when it tells each token,
and the calls are done no later. The same submit with a ``timeout_s`` that never comes is not quiet;
both go to the same server, in turns, with new prompts each time.

    python -m benchmarks.bench_quiet [--calls 1 32] [--tokens 16 64] [--count 20] [--repeat 5]
        [--model PATH] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.common import Cell, append_rows, cells, percentile, spread
from parrot_backend.demo.host_process import HostInfo, start_host
from parrot_backend.protocol import CallNode, Sampling, SubmitRequest, WantedOutput
from parrot_integrations import ParrotClient

Cells = dict[str, Cell]

#: Whoever sets it can come back for what is not there by then: such a submit is not quiet.
_NEVER_S = 600.0
_WARM_UP = 10
_VARIANTS = {"talking": _NEVER_S, "quiet": None}


def make_submit(label: str, calls: int, tokens: int, timeout_s: float | None) -> SubmitRequest:
    """Return a submit of independent calls."""
    sampling = Sampling(max_tokens=tokens, temperature=0, ignore_eos=True)
    return SubmitRequest(
        nodes=tuple(
            CallNode(
                kind="call",
                name=f"call{i}",
                prompt=f"{label} {i}: why is the sky blue, and the sea? {{{{output:reply{i}}}}}",
                sampling=sampling,
            )
            for i in range(calls)
        ),
        outputs=tuple(WantedOutput(variable=f"reply{i}") for i in range(calls)),
        timeout_s=timeout_s,
        close=True,
    )


def processor_s(pid: int) -> float:
    """Return the processor time that the threads of a process have taken (Linux)."""
    total_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total_ns += int(path.read_text().split()[0])
        except FileNotFoundError:
            continue  # a thread that has ended meanwhile
    return total_ns / 1e9


def measure_shape(host: HostInfo, calls: int, tokens: int, options: argparse.Namespace) -> Cells:
    """Measure submits of one shape; print and return the row."""
    client = ParrotClient(host.parrot_url)
    wall_ms: dict[str, list[float]] = {name: [] for name in _VARIANTS}
    processor_ms: dict[str, list[float]] = {name: [] for name in _VARIANTS}
    for number in range(options.repeat + 1):
        count = options.count if number else _WARM_UP
        times: dict[str, list[float]] = {name: [] for name in _VARIANTS}
        used_s = dict.fromkeys(_VARIANTS, 0.0)
        for turn in range(count):
            names = list(_VARIANTS)
            for name in names if turn % 2 else reversed(names):
                label = f"{calls} {tokens} {number} {turn} {name}"
                submit = make_submit(label, calls, tokens, _VARIANTS[name])
                begun_s, start_s = processor_s(host.pid), time.perf_counter()
                client.submit(submit)
                times[name].append((time.perf_counter() - start_s) * 1e3)
                used_s[name] += processor_s(host.pid) - begun_s
        if number:
            for name in _VARIANTS:
                wall_ms[name].append(percentile(times[name], 0.5))
                processor_ms[name].append(used_s[name] / count * 1e3)
    row: Cells = {"model": host.model, "calls": calls, "max_tokens": tokens}
    row |= {"count": options.count, "repeat": options.repeat}
    for what, found in (("wall_ms", wall_ms), ("processor_ms", processor_ms)):
        for name, values in found.items():
            row |= cells(f"{name}_{what}", spread(values))
        pairs = zip(found["talking"], found["quiet"], strict=True)
        ratio = spread([talking / quiet for talking, quiet in pairs])
        row |= cells(f"{what}_ratio", ratio)
        print(
            f"{calls:>4} calls of {tokens} tokens, {what:>12}: talking {spread(found['talking'])}, "
            f"quiet {spread(found['quiet'])}: {ratio} x less"
        )
    return row


async def run(options: argparse.Namespace) -> list[Cells]:
    """Measure all shapes on one engine."""
    arguments = [] if options.model is None else ["--model", options.model]
    rows: list[Cells] = []
    with tempfile.TemporaryDirectory() as folder:
        async with start_host(arguments, Path(folder) / "server.log") as host:
            for calls in options.calls:
                for tokens in options.tokens:
                    row = await asyncio.to_thread(measure_shape, host.info, calls, tokens, options)
                    rows.append(row)
    return rows


def main() -> None:
    """Print times for each shape; save them when asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--tokens", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--count", type=int, default=20, help="submits per repetition")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--model", help="model path or name; the bundled tiny model by default")
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results")
    options = parser.parse_args()
    rows = asyncio.run(run(options))
    if options.save:
        print(f"rows appended to {append_rows('quiet', rows)}")


if __name__ == "__main__":
    main()
