"""How exactly, how fast and in how much memory the structure of agents' calls is found.

No engine and no HTTP: the texts of a run go through ``RunStructure`` in the order in which they
arrive, and its edges are compared with what each call really reads. The baseline is the plain way:
anchors of 24 characters at every position of every output, and the first output that has one is
taken for the source, as far as it goes. It knows no repeated text.

    python -m benchmarks.bench_discovery [--seeds 20] [--save]
"""

from __future__ import annotations

import argparse
import gc
import random
import string
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from benchmarks.common import Cell, append_rows, percentile
from parrot_backend.core.discovery.pieces import Fresh, Reference
from parrot_backend.core.discovery.structure import FoundCall, RunStructure
from parrot_backend.core.ids import VariableId
from tests.helpers.agent_traffic import TrafficCall, metagpt_calls, round_robin_calls

#: Prompts of about the 20,000 characters that the goal speaks of.
_LEAST_CHARS, _MOST_CHARS = 15_000, 25_000


class Seen(NamedTuple):
    """What a method found of a call: edges, characters of values, and of anything known."""

    reads: frozenset[str]
    value_chars: int
    known_chars: int


class Method(Protocol):
    def begin(self, call: TrafficCall) -> None: ...

    def seen(self) -> Seen: ...

    def end(self, index: int, call: TrafficCall) -> None: ...


class Longest:
    """Ours."""

    def __init__(self) -> None:
        self._run = RunStructure()
        self._found: list[FoundCall] = []

    def begin(self, call: TrafficCall) -> None:
        self._found.append(self._run.begin(call.texts))

    def seen(self) -> Seen:
        found = self._found[-1]
        pieces = [piece for text in found.pieces for piece in text]
        known = sum(p.end - p.start for p in pieces if not isinstance(p, Fresh))
        values = sum(p.end - p.start for p in pieces if isinstance(p, Reference))
        return Seen(frozenset(found.reads), values, known)

    def end(self, index: int, call: TrafficCall) -> None:
        self._run.end(self._found[index], VariableId(call.name), call.reply)


class FirstHit:
    """The baseline."""

    _CHARS = 24

    def __init__(self) -> None:
        self._index: dict[str, tuple[str, str, int]] = {}
        self._seen = Seen(frozenset(), 0, 0)

    def begin(self, call: TrafficCall) -> None:
        reads, chars = dict[str, None](), 0
        for text in call.texts:
            place = 0
            while place + self._CHARS <= len(text):
                hit = self._index.get(text[place : place + self._CHARS])
                if hit is None:
                    place += 1
                    continue
                name, source, offset = hit
                length = self._CHARS
                most = min(len(text) - place, len(source) - offset)
                while length < most and text[place + length] == source[offset + length]:
                    length += 1
                reads[name] = None
                chars += length
                place += length
        self._seen = Seen(frozenset(reads), chars, chars)

    def seen(self) -> Seen:
        return self._seen

    def end(self, index: int, call: TrafficCall) -> None:
        text = call.reply
        for offset in range(len(text) - self._CHARS + 1):
            self._index.setdefault(text[offset : offset + self._CHARS], (call.name, text, offset))


class Totals:
    """Sums over runs."""

    def __init__(self) -> None:
        self.calls = self.edges = self.found = self.false = 0
        self.chars = self.value_chars = self.known_chars = 0
        self.times_s: list[tuple[int, float]] = []
        self.end_times_s: list[float] = []

    def play(self, method: Method, calls: Sequence[TrafficCall]) -> None:
        """Put one run through a method."""
        ended = 0
        gc.collect()
        for call in calls:
            for index in range(ended, call.waits):
                start_s = time.thread_time()
                method.end(index, calls[index])
                self.end_times_s.append(time.thread_time() - start_s)
            ended = max(ended, call.waits)
            chars = sum(map(len, call.texts))
            start_s = time.thread_time()
            method.begin(call)
            self.times_s.append((chars, time.thread_time() - start_s))
            self._count(call, method.seen(), chars)

    def _count(self, call: TrafficCall, seen: Seen, chars: int) -> None:
        self.calls += 1
        self.edges += len(call.reads)
        self.found += len(call.reads & seen.reads)
        self.false += len(seen.reads - call.reads)
        self.chars += chars
        self.value_chars += seen.value_chars
        self.known_chars += seen.known_chars

    def row(self) -> dict[str, Cell]:
        """Return what was measured; times are of this thread alone."""
        near = [t * 1e3 for chars, t in self.times_s if _LEAST_CHARS <= chars <= _MOST_CHARS]
        every = [t * 1e3 for _, t in self.times_s]
        return {
            "calls": self.calls,
            "edges": self.edges,
            "found": self.found,
            "false": self.false,
            "value_share": round(self.value_chars / self.chars, 4),
            "known_share": round(self.known_chars / self.chars, 4),
            "p50_ms": round(percentile(every, 0.5), 3),
            "p99_ms": round(percentile(every, 0.99), 3),
            "max_chars": max(chars for chars, _ in self.times_s),
            "at_20k_p50_ms": round(percentile(near, 0.5), 3) if near else None,
            "at_20k_p99_ms": round(percentile(near, 0.99), 3) if near else None,
            "end_p50_ms": round(percentile([t * 1e3 for t in self.end_times_s], 0.5), 3),
        }


def memory_bytes(method: Callable[[], Method], calls: Sequence[TrafficCall]) -> int:
    """Return what one session holds at the end of a run, the texts of the run not counted."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    made = method()
    Totals().play(made, calls)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


def new_text_ms(num_values: int, repeats: int) -> float:
    """Return the median time for 20,000 characters that no one has said before."""
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(999)]
    times: list[float] = []
    for _ in range(repeats):
        run = RunStructure()
        for number in range(num_values):
            run.set_input(VariableId(f"v{number}"), " ".join(rng.choices(words, k=300)))
        text = " ".join(rng.choices(words, k=4000))[:20_000]
        start_s = time.thread_time()
        run.begin([text])
        times.append((time.thread_time() - start_s) * 1e3)
    return percentile(times, 0.5)


_TRAFFIC: dict[str, Callable[[int], Iterable[TrafficCall]]] = {
    "metagpt 4": lambda seed: metagpt_calls(4, seed=seed),
    "metagpt 4 talks": lambda seed: metagpt_calls(4, seed=seed, talks=True),
    "metagpt 8": lambda seed: metagpt_calls(8, seed=seed),
    "metagpt 16": lambda seed: metagpt_calls(16, seed=seed),
    "metagpt 16 talks": lambda seed: metagpt_calls(16, seed=seed, talks=True),
    "round robin 9": lambda seed: round_robin_calls(9, seed=seed),
    "round robin 40": lambda seed: round_robin_calls(40, seed=seed),
}

_METHODS: dict[str, Callable[[], Method]] = {"first hit": FirstHit, "longest": Longest}


def main() -> None:
    """Print a table; save it when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traffic", nargs="+", default=list(_TRAFFIC), choices=list(_TRAFFIC))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--save", action="store_true", help="append to results/discovery.csv")
    arguments = parser.parse_args()
    rows: list[dict[str, Cell]] = []
    print("                            edges   found false | values known | ms p50   p99 | at 20k")
    for traffic in arguments.traffic:
        for name, method in _METHODS.items():
            totals = Totals()
            for seed in range(arguments.seeds):
                totals.play(method(), list(_TRAFFIC[traffic](seed)))
            memory = memory_bytes(method, list(_TRAFFIC[traffic](0)))
            row = {"traffic": traffic, "method": name, "runs": arguments.seeds} | totals.row()
            rows.append(row | {"session_kib": memory // 1024})
            print(
                f"{traffic:>16} {name:>9} {row['edges']:>7} {row['found']:>7} {row['false']:>5} | "
                f"{row['value_share']:.3f} {row['known_share']:.3f} | {row['p50_ms']:>6} "
                f"{row['p99_ms']:>6} | {row['at_20k_p50_ms']} / {row['at_20k_p99_ms']} ms, "
                f"{memory // 1024} KiB",
                flush=True,
            )
    print(f"20,000 new characters against 200 values: {new_text_ms(200, 20):.2f} ms")
    if arguments.save:
        print(f"rows appended to {append_rows('discovery', rows)}")


if __name__ == "__main__":
    main()
