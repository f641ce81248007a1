"""The index of cached prefixes: bytes per entry, time per look-up, and a real trace replayed.

``memory``: what the index takes for each prefix that an engine holds, its 16-byte hash included,
with prefixes held by one engine each and by all of them. ``lookup``: an engine that holds the
longest cached prefix of a prompt of so many blocks, and how much of it, as a placement asks it; the
prompt is hashed before. ``replay``: the requests of Mooncake's conversation trace (12,031 requests
with the hashes of their 288,500 blocks of 512 tokens; FAST'25 artefact, Apache-2.0,
https://github.com/kvcache-ai/Mooncake, FAST25-release/traces/conversation_trace.jsonl) one after
another, ``index``: look up and record, each where most of it is cached or else by turns;
``scheduler``: queued, placed by a policy and ended when 8 others have come for each engine.
Nothing waits: it is the speed of the index and the scheduler, not of a cluster. Times are of the
thread; each is the median of the repeats.

    python -m benchmarks.bench_prefix_index --trace conversation_trace.jsonl [--save]
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
import tracemalloc
from collections import deque
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from benchmarks.common import Cell, append_rows
from parrot_backend.core.config import PlacementName, SchedulerConfig
from parrot_backend.core.events import EngineInfo
from parrot_backend.core.ids import AttemptId, EngineId, NodeId, SessionId, VariableId
from parrot_backend.core.nodes import Request
from parrot_backend.core.prefix import PrefixBoundary, PrefixChain, PrefixIndex, PrefixIndexConfig
from parrot_backend.core.sampling import Sampling
from parrot_backend.core.scheduling.scheduler import Scheduler

_BLOCK_TOKENS = 512
_OVERLAP = 8
_PLACEMENTS: tuple[PlacementName, ...] = ("paper", "least_loaded")

#: 8,192 blocks of 512 tokens are 4 million tokens: more than any GPU holds.
_CONFIG = PrefixIndexConfig()


def boundary(number: int, position: int) -> PrefixBoundary:
    """Return the boundary after a block: a number that stands for it and all before it."""
    digest = blake2b(number.to_bytes(8), digest_size=16).digest()
    return PrefixBoundary(digest, (position + 1) * _BLOCK_TOKENS)


def read_trace(path: Path) -> list[PrefixChain]:
    """Return the blocks of each request of a trace."""
    with path.open() as file:
        hashes = [json.loads(line)["hash_ids"] for line in file]
    return [tuple(boundary(each, i) for i, each in enumerate(ids)) for ids in hashes]


def make_index(num_engines: int) -> tuple[PrefixIndex, list[EngineId]]:
    """Return an empty index and its engines."""
    index, engines = PrefixIndex(_CONFIG), [EngineId(f"e{i}") for i in range(num_engines)]
    for engine in engines:
        index.add_engine(engine)
    return index, engines


def bytes_per_entry(num_engines: int, *, is_shared: bool) -> float:
    """Return what one prefix on one engine takes in a full index."""
    most = _CONFIG.max_prefixes_per_engine
    index, engines = make_index(num_engines)
    gc.collect()
    tracemalloc.start()
    for number, engine in enumerate(engines):
        first = 0 if is_shared else number * most
        index.record(engine, tuple(boundary(first + i, i) for i in range(most)))
    used_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used_bytes / (num_engines * most)


def lookup_s(num_engines: int, num_blocks: int, *, is_hit: bool) -> float:
    """Return the time of finding who holds most of a prompt of so many blocks."""
    index, engines = make_index(num_engines)
    chains = [tuple(boundary(n << 20 | i, i) for i in range(num_blocks)) for n in range(64)]
    for number, chain in enumerate(chains):
        index.record(engines[number % num_engines], chain[:1])
        if is_hit:
            index.record(engines[number % num_engines], chain)
    start_s = time.thread_time()
    for chain in chains * 20:
        holder = next(iter(index.longest_held(chain)))
        index.resident_tokens(holder, chain)
    return (time.thread_time() - start_s) / (20 * len(chains))


def replay_index(chains: Sequence[PrefixChain], num_engines: int) -> tuple[float, int]:
    """Return seconds, and how many blocks were cached where each request went."""
    index, engines = make_index(num_engines)
    cached_tokens = 0
    start_s = time.thread_time()
    for number, chain in enumerate(chains):
        engine = next(iter(index.longest_held(chain)), engines[number % num_engines])
        cached_tokens += index.resident_tokens(engine, chain)
        index.record(engine, chain)
    return time.thread_time() - start_s, cached_tokens // _BLOCK_TOKENS


def replay_scheduler(
    chains: Sequence[PrefixChain], num_engines: int, placement: PlacementName, *, counts: bool
) -> tuple[float, int]:
    """Return seconds and, if they are counted, how many blocks were cached where requests went."""
    scheduler = Scheduler(SchedulerConfig(placement=placement), _CONFIG)
    for number in range(num_engines):
        info = EngineInfo(EngineId(f"e{number}"), ("m",), 200_000, 10**7, 10**7, 256)
        scheduler.add_engine(info, 0.0)
    requests = [request(number, chain) for number, chain in enumerate(chains)]
    running: deque[tuple[EngineId, AttemptId]] = deque()
    cached_tokens = 0
    start_s = time.thread_time()
    for each in requests:
        scheduler.enqueue(each)
        before = dict[EngineId, int]()
        for engine in scheduler.engines if counts else ():
            before[engine] = scheduler.prefixes.resident_tokens(engine, each.prefixes)
        for placed, engine, _ in scheduler.schedule(0.0, attempt_of):
            running.append((engine, attempt_of(placed)))
            cached_tokens += before.get(engine, 0)
        if len(running) > _OVERLAP * num_engines:
            scheduler.release(*running.popleft())
    return time.thread_time() - start_s, cached_tokens // _BLOCK_TOKENS


def request(number: int, chain: PrefixChain) -> Request:
    """Return a ready request with these blocks."""
    return Request(
        id=NodeId(f"r{number}"),
        inputs=(),
        output=VariableId(f"r{number}"),
        session=SessionId("s"),
        tenant="default",
        model="m",
        segments=(),
        sampling=Sampling(max_tokens=500),
        order=number,
        session_order=number,
        ready_s=0.0,
        prefixes=chain,
        prompt_tokens=chain[-1].tokens if chain else 0,
    )


def attempt_of(request: Request) -> AttemptId:
    """Return the id of a request's attempt."""
    return AttemptId(f"{request.id}~1")


def peak_growth(chains: Sequence[PrefixChain], num_engines: int) -> float:
    """Return how much more memory the index takes after a second replay of other blocks."""
    index, engines = make_index(num_engines)
    tracemalloc.start()
    sizes = []
    for turn in range(2):
        for number, chain in enumerate(chains):
            other = tuple(PrefixBoundary(b.hash[:15] + bytes([turn]), b.tokens) for b in chain)
            index.record(engines[number % num_engines], other)
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    return sizes[1] / sizes[0]


def row(what: str, case: str, num_engines: int, **values: float) -> dict[str, Cell]:
    """Return a row; columns that a measurement does not have stay empty."""
    columns = (
        "bytes_per_entry",
        "lookup_us",
        "requests_per_s",
        "blocks_per_s",
        "hit_share",
        "growth",
    )
    found: dict[str, Cell] = {"what": what, "case": case, "engines": num_engines}
    return found | {c: round(values[c], 3) if c in values else None for c in columns}


def measure(chains: Sequence[PrefixChain], num_engines: int, repeats: int) -> list[dict[str, Cell]]:
    """Return all rows for a number of engines."""
    rows = [
        row(
            "memory",
            "held by all" if is_shared else "held by one",
            num_engines,
            bytes_per_entry=bytes_per_entry(num_engines, is_shared=is_shared),
        )
        for is_shared in (False, True)
    ]
    for num_blocks in (16, 256):
        for is_hit in (True, False):
            times = [lookup_s(num_engines, num_blocks, is_hit=is_hit) for _ in range(repeats)]
            case = f"{num_blocks} blocks, {'all' if is_hit else 'one'} cached"
            rows.append(row("lookup", case, num_engines, lookup_us=statistics.median(times) * 1e6))
    num_blocks = sum(map(len, chains))

    def add_replay(case: str, found: list[tuple[float, int]], hits: int) -> None:
        seconds = statistics.median(s for s, _ in found)
        rates = {"requests_per_s": len(chains) / seconds, "blocks_per_s": num_blocks / seconds}
        rows.append(row("replay", case, num_engines, **rates, hit_share=hits / num_blocks))

    if chains:
        found = [replay_index(chains, num_engines) for _ in range(repeats)]
        add_replay("index", found, found[0][1])
    for name in _PLACEMENTS if chains else ():
        found = [replay_scheduler(chains, num_engines, name, counts=False) for _ in range(repeats)]
        _, hits = replay_scheduler(chains, num_engines, name, counts=True)
        add_replay(f"scheduler, {name}", found, hits)
    # Where not even one replay fills the index, its memory cannot be flat yet.
    if num_blocks > num_engines * _CONFIG.max_prefixes_per_engine:
        rows.append(row("replay", "twice", num_engines, growth=peak_growth(chains, num_engines)))
    return rows


def main() -> None:
    """Print what was measured; save it when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="JSONL with hash_ids; without it, no replay")
    parser.add_argument("--engines", nargs="+", type=int, default=[4, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="append to results/prefix_index.csv")
    arguments = parser.parse_args()
    chains = read_trace(arguments.trace) if arguments.trace else []
    rows: list[dict[str, Cell]] = []
    for num_engines in arguments.engines:
        found = measure(chains, num_engines, arguments.repeats)
        for each in found:
            print("  ".join(f"{value}" for value in each.values() if value is not None), flush=True)
        rows += found
    if arguments.save:
        print(f"rows appended to {append_rows('prefix_index', rows)}")


if __name__ == "__main__":
    main()
