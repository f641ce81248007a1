from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.sim.kv_cache import KvCache
from parrot_backend.sim.kv_node import Boundary, Hold
from parrot_backend.sim.kv_pins import KvPins
from tests.core.hypothesis_settings import examples
from tests.sim.engine_driver import LATENCY, Driver, make_spec, request

BLOCK = 4


def compute(cache: KvCache, *chain: Boundary) -> Hold:
    """Return what a request holds that has computed a prompt."""
    most = chain[-1][1] // BLOCK
    hold = cache.hold(*cache.find("t", chain, most))
    cache.take(most - hold.num_blocks)
    cache.store(hold, chain, chain[-1][1])
    return hold


def end(cache: KvCache, hold: Hold) -> None:
    cache.release(hold, hold.num_blocks * BLOCK)


def cached(cache: KvCache, *chain: Boundary) -> int:
    node, depth = cache.find("t", chain, 10**6)
    return node.start + depth


def flood(cache: KvCache, number: int) -> None:
    """Let a prompt of others take all that is free."""
    hold = compute(cache, (f"flood{number}", cache.num_free * BLOCK))
    end(cache, hold)


def test_what_is_kept_outlives_a_flood_and_what_is_released_does_not() -> None:
    cache = KvCache(20, BLOCK)
    pins = KvPins(cache)
    for name in ("kept", "other"):
        end(cache, compute(cache, (name, 16)))
    pins.retain(b"k", "t", (("kept", 16),), 0.0)
    assert (pins.num_pinned_blocks, cache.num_free) == (4, 16)
    flood(cache, 1)
    assert (cached(cache, ("kept", 16)), cached(cache, ("other", 16))) == (4, 0)
    pins.release(b"k")
    assert (pins.num_pinned_blocks, cache.num_free) == (0, 20)
    flood(cache, 2)
    assert cached(cache, ("kept", 16)) == 0


def test_leases_share_blocks_and_the_cap_cuts_the_tail() -> None:
    cache = KvCache(20, BLOCK)
    pins = KvPins(cache, max_share=0.5)
    chains: list[tuple[Boundary, ...]] = [(("p", 16), (name, 32)) for name in "ab"]
    for chain in chains:
        end(cache, compute(cache, *chain))
    pins.retain(b"a", "t", chains[0], 0.0)
    assert pins.num_pinned_blocks == 8
    pins.retain(b"b", "t", chains[1], 0.0)
    assert (pins.num_pinned_blocks, cache.num_free) == (10, 10)
    # What ends makes room for who lacked it.
    pins.release(b"a")
    assert (pins.num_pinned_blocks, cache.num_free) == (8, 12)


def test_a_lease_ends_when_it_is_not_renewed() -> None:
    cache = KvCache(20, BLOCK)
    pins = KvPins(cache, ttl_s=60.0)
    for name in ("a", "b"):
        end(cache, compute(cache, (name, 16)))
        pins.retain(name.encode(), "t", ((name, 16),), 0.0)
    pins.touch(b"b", 30.0)
    pins.expire(60.0)
    assert pins.num_pinned_blocks == 8
    pins.expire(61.0)
    assert (b"a" in pins, b"b" in pins, pins.num_pinned_blocks) == (False, True, 4)


def test_on_need_the_oldest_go_that_nobody_uses() -> None:
    cache = KvCache(20, BLOCK)
    pins = KvPins(cache)
    holds = {}
    for time_s, name in enumerate(("used", "old", "new")):
        holds[name] = compute(cache, (name, 12))
        pins.retain(name.encode(), "t", ((name, 12),), float(time_s))
    end(cache, holds["old"])
    end(cache, holds["new"])
    assert cache.num_free == 11
    pins.reclaim(1)
    assert (b"used" in pins, b"old" in pins, b"new" in pins) == (True, False, True)
    assert cache.num_free == 14


def test_what_a_request_uses_behind_a_lease_is_not_given_back() -> None:
    cache = KvCache(20, BLOCK)
    pins = KvPins(cache)
    hold = compute(cache, ("p", 12), ("more", 24))
    pins.retain(b"p", "t", (("p", 12),), 0.0)
    pins.reclaim(5)
    assert b"p" in pins
    end(cache, hold)
    pins.reclaim(1)
    assert b"p" not in pins


def test_a_lease_grows_with_what_is_cached() -> None:
    cache = KvCache(20, BLOCK)
    pins = KvPins(cache)
    chain: tuple[Boundary, ...] = (("p", 16), ("q", 32))
    pins.retain(b"q", "t", chain, 0.0)
    assert pins.num_pinned_blocks == 0
    hold = compute(cache, chain[0])
    pins.advance(b"q", 1.0)
    assert pins.num_pinned_blocks == 4
    end(cache, hold)
    end(cache, compute(cache, *chain))
    pins.advance(b"q", 2.0)
    assert pins.num_pinned_blocks == 8


@given(random=st.randoms(use_true_random=False), share=st.sampled_from((0.2, 0.5)))
@examples(80, shrinks=False)
def test_pinned_blocks_are_counted_and_capped(random: Random, share: float) -> None:
    cache = KvCache(40, BLOCK)
    pins = KvPins(cache, max_share=share, ttl_s=5.0)
    for step in range(60):
        first, last = random.choice("ab"), random.choice("xyz")
        chain: tuple[Boundary, ...] = ((first, 12), (first + last, 20 + 4 * (last == "z")))
        wanted = chain[: random.randint(1, 2)]
        key = repr(wanted).encode()
        match random.randrange(5):
            case 0:
                if chain[-1][1] // BLOCK <= cache.num_free:
                    end(cache, compute(cache, *chain))
            case 1 | 2:
                pins.retain(key, "t", wanted, float(step))
            case 3:
                pins.release(key)
            case _:
                random.choice((pins.expire, lambda _: pins.reclaim(3)))(float(step))
        held = sum(node.num_held for node in cache.nodes())
        assert pins.num_pinned_blocks == held <= share * 40
        assert cache.num_free == 40 - held


@pytest.mark.parametrize("is_kept", [True, False])
def test_an_engine_keeps_what_it_is_told_to(is_kept: bool) -> None:
    driver = Driver(make_spec(rules="parrot", num_blocks=40), reports_cache=True)
    retain = (b"p",) if is_kept else ()
    driver.start(request("a", [("p", 160), ("a", 170)], 5, objective=LATENCY, retain=retain))
    driver.run()
    for i in range(5):
        driver.start(request(f"flood{i}", 400, 5, objective=LATENCY), at_s=1.0 + i)
        driver.run()
    assert (b"p" in driver.held) is is_kept
    driver.start(request("b", [("p", 160), ("b", 170)], 5, objective=LATENCY), at_s=10.0)
    driver.run()
    assert driver.finished["b"].cached_tokens == (160 if is_kept else 0)


def test_pins_keep_nobody_waiting_for_good() -> None:
    driver = Driver(make_spec(rules="parrot", num_blocks=40))
    driver.start(request("a", [("p", 320)], 5, objective=LATENCY, retain=(b"p",)))
    driver.run()
    driver.start(request("b", 600, 5, objective=LATENCY), at_s=1.0)
    driver.run()
    assert driver.finished["b"].started_s == 1.0
    assert driver.is_empty


def test_what_is_released_makes_room_for_others_only_after_the_step_in_progress() -> None:
    driver = Driver(make_spec(rules="parrot", num_blocks=24), reports_cache=True)
    driver.start(request("a", [("p", 160)], retain=(b"p",)))
    driver.start(request("b", [("q", 160)], retain=(b"q",)), at_s=1.0)
    # Of the blocks that may be pinned p has ten, and q the other two; c uses p and all the rest.
    driver.start(request("c", [("p", 160), ("c", 161)], 180), at_s=2.0)
    driver.until(2.5)
    driver.engine.release((b"p",), 2.5)
    assert driver.run().keys() == {"a", "b", "c"}
