from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.sim.kv_cache import KvCache
from parrot_backend.sim.kv_node import Hold, KvNode
from tests.core.hypothesis_settings import examples
from tests.sim.naive_cache import NaiveCache, NaiveHold

BLOCK = 4
#: Lengths of the segments that prompts are made of; some are shorter than a block.
LENGTHS = (2, 3, 4, 7, 8, 13)


def chain_of(segments: tuple[int, ...]) -> tuple[tuple[Hashable, int], ...]:
    boundaries: list[tuple[Hashable, int]] = []
    tokens = 0
    for number, segment in enumerate(segments, 1):
        tokens += LENGTHS[segment]
        boundaries.append((repr(segments[:number]).encode(), tokens))
    return tuple(boundaries)


@dataclass(eq=False)
class Both:
    """One request in both models."""

    name: str
    tenant: str
    chain: tuple[tuple[Hashable, int], ...]
    prompt: int
    hold: Hold | None = None
    naive: NaiveHold | None = None
    computed: int = 0
    generated: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.generated


def cached_names(cache: KvCache) -> set[Hashable]:
    return {name for node in cache.nodes() for name in node_names(node)}


def node_names(node: KvNode) -> list[Hashable]:
    root = node
    while root.parent is not None:
        root = root.parent
    path = (root.key, *(each.key for each in node.path()))
    return [(path, node.start + i) for i in range(node.cached)]


def queue_names(cache: KvCache) -> list[Hashable]:
    return [
        node_names(run.node)[i] for run in cache._queue for i in reversed(range(run.low, run.high))
    ]


class TwoCaches:
    """Does the same to the cache and to the naive one, and compares."""

    def __init__(self, num_blocks: int) -> None:
        self.cache = KvCache(num_blocks, BLOCK)
        self.naive = NaiveCache(num_blocks, BLOCK)
        self.running: list[Both] = []
        self.preempted: list[Both] = []
        self.num = 0

    def compare(self) -> None:
        assert self.cache.num_free == self.naive.num_free
        assert cached_names(self.cache) == set(self.naive.holders)
        assert queue_names(self.cache) == self.naive.queue

    def begin(self, both: Both) -> None:
        most = (both.total - 1) // BLOCK
        node, depth = self.cache.find(both.tenant, both.chain, most)
        found = self.naive.find(both.tenant, both.chain, most)
        assert node.start + depth == len(found)
        needed = self.cache.num_needed(node, depth, both.total)
        assert needed == self.naive.num_needed(found, both.total)
        if needed <= self.cache.num_free:
            both.hold, both.naive = self.cache.hold(node, depth), self.naive.hold(found)
            both.computed = len(found) * BLOCK
            self.running.append(both)

    def start(self, segments: tuple[int, ...], tenant: str) -> None:
        self.num += 1
        chain = chain_of(segments)
        self.begin(Both(f"r{self.num}", tenant, chain, chain[-1][1]))

    def _grow(self, both: Both, tokens: int) -> bool:
        blocks = -(-(both.computed + tokens) // BLOCK) - -(-both.computed // BLOCK)
        if blocks > self.cache.num_free:
            return False
        assert both.naive is not None
        self.cache.take(blocks)
        self.naive.take(blocks)
        both.naive.num_private += blocks
        both.computed += tokens
        return True

    def compute(self, both: Both, tokens: int) -> None:
        tokens = min(tokens, both.total - both.computed)
        if tokens > 0 and self._grow(both, tokens):
            assert both.hold is not None
            assert both.naive is not None
            self.cache.store(both.hold, both.chain, both.computed)
            self.naive.store(both.naive, both.tenant, both.chain, both.computed)

    def decode(self, both: Both, tokens: int) -> None:
        if both.computed == both.total and self._grow(both, tokens):
            both.generated += tokens

    def end(self, both: Both, *, comes_back: bool) -> None:
        self.running.remove(both)
        assert both.hold is not None
        assert both.naive is not None
        if both.computed == both.total and both.computed > both.prompt:
            both.generated += 1  # the last one, which is not computed
        has_tail = both.computed > both.prompt
        tail = (both.name, both.total)
        names: list[Hashable] = []
        if has_tail:
            own = self.naive.contents(both.tenant, both.chain)
            # What was computed again behind a preemption stands under the same name.
            base = [c for c in own if c[0][-1] != both.name]  # type: ignore[index]
            path = (*(base[-1][0] if base else (both.tenant,)), both.name)  # type: ignore[index]
            names = [(path, i) for i in range(len(own), both.computed // BLOCK)]
        self.cache.release(both.hold, both.computed, tail if has_tail else None)
        self.naive.release(both.naive, names)
        if comes_back:
            if both.generated:
                both.chain = (*chain_prompt(both), tail)
            both.computed = 0
            self.preempted.append(both)


def chain_prompt(both: Both) -> tuple[tuple[Hashable, int], ...]:
    return tuple(each for each in both.chain if each[0] != both.name)


KINDS = ("start", "start", "compute", "compute", "compute", "decode", "end", "preempt", "again")


@given(
    num_blocks=st.integers(6, 40),
    num_segments=st.integers(1, len(LENGTHS)),
    random=st.randoms(use_true_random=False),
)
@examples(120, shrinks=False)
def test_is_the_same_as_block_by_block(num_blocks: int, num_segments: int, random: Random) -> None:
    both = TwoCaches(num_blocks)
    for _ in range(80):
        kind = random.choice(KINDS)
        if kind == "start":
            segments = random.choices(range(num_segments), k=random.randint(1, 3))
            both.start(tuple(segments), random.choice("aaab"))
        elif kind == "again":
            if both.preempted:
                both.begin(both.preempted.pop(random.randrange(len(both.preempted))))
        elif both.running:
            one = random.choice(both.running)
            if kind == "compute":
                both.compute(one, random.choice((3, 5, 20)))
            elif kind == "decode":
                both.decode(one, random.randint(1, 9))
            else:
                both.end(one, comes_back=kind == "preempt")
        both.compare()
    for one in list(both.running):
        both.end(one, comes_back=False)
    assert both.cache.num_free == num_blocks
    both.compare()


def test_a_tail_that_was_named_is_found_by_a_prompt_that_goes_on() -> None:
    cache = KvCache(16, BLOCK)
    node, depth = cache.find("t", ((b"p", 8),), 1)
    hold = cache.hold(node, depth)
    cache.take(5)
    cache.store(hold, ((b"p", 8),), 8)
    prompt = hold.node
    cache.release(hold, 19, ("attempt", 20))
    longer = ((b"p", 8), (b"k", 20), (b"m", 30))
    assert cache.find("t", longer, 7) == (prompt, 2)
    cache.name_tail(prompt, "attempt", b"k")
    tail, depth = cache.find("t", longer, 7)
    assert (tail.start, depth) == (2, 2)  # the last block was not full
    cache.name_tail(prompt, "attempt", b"other")  # too late: nothing happens
    assert cache.find("t", longer, 7) == (tail, 2)


def test_the_tail_of_a_run_is_evicted_alone() -> None:
    cache = KvCache(6, BLOCK)
    chain = ((b"p", 16),)
    hold = cache.hold(*cache.find("t", chain, 3))
    cache.take(4)
    cache.store(hold, chain, 16)
    cache.release(hold, 16)
    cache.take(3)  # two have no content
    node, depth = cache.find("t", chain, 4)
    assert depth == 3
    assert cache.num_needed(node, depth, 16) == 4


def test_more_than_there_is_cannot_be_taken() -> None:
    with pytest.raises(AssertionError, match="more blocks"):
        KvCache(4, BLOCK).take(5)
