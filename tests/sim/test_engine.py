"""Steps, memory and the cache of the simulated engine, by hand."""

from __future__ import annotations

import math

import pytest

from tests.sim.engine_driver import THROUGHPUT, Driver, group, make_spec, request


def test_one_request_by_hand() -> None:
    driver = Driver(make_spec())
    driver.start(request("a", 100, 3), at_s=5.0)
    driver.run()
    ended = driver.finished["a"]
    first_s = 5.0 + 0.01 + 100 * 1e-4
    assert ended.started_s == 5.0
    assert ended.first_token_s == pytest.approx(first_s)
    # Two steps of one decode, with 100 and then 101 tokens of context.
    assert ended.at_s == pytest.approx(first_s + 2 * 0.011 + 201e-6)
    assert (ended.cached_tokens, ended.computed_tokens) == (0, 100)
    assert driver.is_empty


def test_a_batch_decodes_together_by_hand() -> None:
    driver = Driver(make_spec())
    driver.start(*(request(f"r{i}", 50, 2 + i) for i in range(4)))
    driver.run()
    now_s = 0.01 + 200 * 1e-4
    context = 200
    for i in range(4):  # in each step one of them ends
        decodes = 4 - i
        now_s += 0.01 + decodes * 1e-3 + context * 1e-6
        assert driver.end_s(f"r{i}") == pytest.approx(now_s)
        context = (context + decodes) - (50 + 1 + i)
    assert driver.is_empty


def test_a_long_prompt_is_computed_in_chunks_beside_decodes() -> None:
    driver = Driver(make_spec(max_step_tokens=128))
    driver.start(request("short", 28, 10), request("long", 227, 1))
    driver.run()
    # 28 + 100 tokens, then one decode beside the last 127.
    first_s = 0.01 + 128 * 1e-4
    second_s = 0.01 + 127 * 1e-4 + 1e-3 + 28e-6
    assert driver.finished["short"].first_token_s == pytest.approx(first_s)
    assert driver.end_s("long") == pytest.approx(first_s + second_s)


def test_what_arrives_in_a_step_takes_part_in_the_next() -> None:
    driver = Driver(make_spec())
    driver.start(request("a", 100, 100))
    first_s = 0.01 + 100 * 1e-4
    # In the middle of the third step of decoding.
    decode_s = [0.011 + (100 + i) * 1e-6 for i in range(3)]
    arrival_s = first_s + sum(decode_s[:2]) + 0.005
    driver.start(request("b", 40, 1), at_s=arrival_s)
    driver.run()
    begun_s = first_s + sum(decode_s)
    assert driver.finished["b"].started_s == pytest.approx(begun_s)
    assert driver.end_s("b") == pytest.approx(begun_s + 0.01 + 40e-4 + 1e-3 + 103e-6)


def test_places_are_first_come_first_served() -> None:
    driver = Driver(make_spec(max_requests=2))
    driver.start(*(request(f"r{i}", 10, 5) for i in range(5)))
    driver.run()
    starts = [driver.finished[f"r{i}"].started_s for i in range(5)]
    assert starts == sorted(starts)
    assert starts[0] == starts[1] < starts[2] == starts[3] < starts[4]


def test_a_request_waits_until_all_of_its_prompt_fits() -> None:
    driver = Driver(make_spec(num_blocks=10))  # 160 tokens
    driver.start(request("a", 100, 3), request("b", 100, 3), request("c", 10, 3))
    driver.run()
    assert driver.finished["b"].started_s == pytest.approx(driver.end_s("a"))
    # Nobody overtakes: the short one waits behind the long one.
    assert driver.finished["c"].started_s >= driver.finished["b"].started_s
    assert driver.engine.machine.num_preempted == 0


@pytest.mark.parametrize("rules", ["vllm", "parrot"])
def test_the_newest_is_preempted_and_computes_again(rules: str) -> None:
    driver = Driver(make_spec(num_blocks=8, caches_prefixes=False, rules=rules))
    driver.start(request("a", 50, 40), request("b", 50, 40))
    driver.run()
    assert driver.engine.machine.num_preempted == 1
    ended = driver.finished["b"]
    # The eighth block is full when both have 64 tokens; b had made 15 more, and computes them too.
    assert ended.computed_tokens == 50 + 65
    assert ended.first_token_s == driver.finished["a"].first_token_s
    assert ended.at_s > driver.end_s("a")
    assert driver.is_empty


def test_what_was_preempted_finds_its_blocks_if_they_are_left() -> None:
    driver = Driver(make_spec(num_blocks=8))
    driver.start(request("a", 50, 20), request("b", 50, 40))
    driver.run()
    assert driver.engine.machine.num_preempted == 1
    assert 50 < driver.finished["b"].computed_tokens < 50 + 65


def test_a_prefix_is_computed_once() -> None:
    driver = Driver(make_spec())
    driver.start(request("a", [("p", 160), ("a", 200)], 5))
    driver.run()
    driver.start(request("b", [("p", 160), ("b", 200)], 5), at_s=1.0)
    driver.run()
    assert driver.finished["b"].cached_tokens == 160
    assert driver.finished["b"].computed_tokens == 40


def test_a_boundary_within_a_block_shares_the_blocks_before_it() -> None:
    driver = Driver(make_spec())
    driver.start(request("a", [("p", 167), ("a", 200)]))
    driver.run()
    driver.start(request("b", [("p", 167), ("b", 200)]), at_s=1.0)
    driver.run()
    assert driver.finished["b"].cached_tokens == 160


def test_the_last_token_of_a_known_prompt_is_computed_again() -> None:
    driver = Driver(make_spec())
    for number in range(2):
        driver.start(request(f"r{number}", [("p", 160)]), at_s=float(number))
        driver.run()
    assert driver.finished["r1"].cached_tokens == 144


def test_tenants_share_nothing() -> None:
    driver = Driver(make_spec())
    driver.start(request("a", [("p", 160), ("a", 200)]))
    driver.run()
    driver.start(request("b", [("p", 160), ("b", 200)], tenant="other"), at_s=1.0)
    driver.run()
    assert driver.finished["b"].cached_tokens == 0


def test_requests_of_one_step_share_what_is_computed_in_it() -> None:
    driver = Driver(make_spec())
    driver.start(*(request(f"r{i}", [("p", 320), (f"r{i}", 330)]) for i in range(3)))
    driver.run()
    assert [driver.finished[f"r{i}"].cached_tokens for i in range(3)] == [0, 320, 320]


def test_outputs_are_found_once_they_are_named() -> None:
    driver = Driver(make_spec())
    driver.start(request("a", [("p", 100)], 60))
    driver.run()
    prompt = [("p", 100), ("pa", 160), ("more", 200)]
    driver.start(request("unnamed", [("p", 100), ("x", 160), ("y", 200)]), at_s=5.0)
    driver.run()
    driver.engine.extend(driver.finished["a"].attempt, b"pa", 6.0)
    driver.start(request("named", prompt), at_s=6.0)
    driver.run()
    assert driver.finished["unnamed"].cached_tokens == 96
    # The last token of the output was never computed, so its block is not full.
    assert driver.finished["named"].cached_tokens == 144


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_reads_of_a_common_prefix_count_less(share: float) -> None:
    times = []
    for repeated_read in (1.0, share):
        driver = Driver(make_spec(repeated_read=repeated_read))
        driver.start(*(request(f"r{i}", [("p", 320), (f"r{i}", 330)], 11) for i in range(4)))
        driver.run()
        times.append(driver.end_s("r3"))
    # Ten steps in which three of four read the 320 tokens again.
    assert times[0] - times[1] == pytest.approx(10 * 3 * 320e-6 * (1 - share))


def test_an_abort_gives_back_everything() -> None:
    driver = Driver(make_spec(max_requests=2))
    driver.start(*(request(f"r{i}", 100, 50) for i in range(3)))
    driver.until(0.1)
    for name in ("r0", "r2", "unknown"):
        driver.engine.abort(request(name, 1).attempt, 0.1)
    driver.run()
    assert set(driver.finished) == {"r1"}
    assert driver.is_empty


@pytest.mark.parametrize(
    ("changes", "prompt", "output", "message"),
    [
        ({"max_model_len": 100}, 90, 11, "101 tokens"),
        ({"num_blocks": 10}, 150, 11, "161 tokens"),
        ({}, 0, 1, "empty"),
        ({}, 10, 0, "0 tokens"),
    ],
)
def test_what_can_never_run_is_refused(
    changes: dict[str, int], prompt: int, output: int, message: str
) -> None:
    driver = Driver(make_spec(**changes))
    driver.start(request("a", prompt, output), at_s=3.0)
    driver.run()
    assert message in driver.refused["a"]
    assert driver.times == [3.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_blocks": 0}, "num_blocks"),
        ({"block_tokens": 0}, "block_tokens"),
        ({"max_step_tokens": 10}, "too short"),
    ],
)
def test_an_engine_that_cannot_be_says_why(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Driver(make_spec(**changes))


def test_a_slow_engine_takes_longer_from_the_next_step_on() -> None:
    driver = Driver(make_spec())
    driver.start(request("a", 100, 3))
    driver.until(0.005)
    driver.engine.slow_down(2.0, 0.005)
    driver.run()
    assert driver.end_s("a") == pytest.approx(0.02 + 2 * (2 * 0.011 + 201e-6))


@pytest.mark.parametrize("rules", ["vllm", "parrot"])
def test_an_engine_that_hangs_never_ends_anything(rules: str) -> None:
    driver = Driver(make_spec(rules=rules))
    driver.start(request("a", 100, 3))
    driver.engine.slow_down(math.inf, 0.0)
    driver.run()
    assert not driver.finished
    with pytest.raises(ValueError, match="positive"):
        driver.engine.slow_down(0.0, 0.0)


def test_what_the_cache_holds_is_told_exactly() -> None:
    driver = Driver(make_spec(num_blocks=20), reports_cache=True)
    driver.start(request("a", [("p", 100), ("a", 160)], objective=THROUGHPUT))
    driver.run()
    assert driver.held == {b"p": 96, b"a": 160}
    # 15 blocks more than the 10 that are left: five of the oldest go, from the tail.
    driver.start(request("b", 240), at_s=1.0)
    driver.run()
    assert driver.held == {b"b": 240}
    node, depth = driver.engine.machine.cache.find("default", [(b"p", 100)], 6)
    assert node.start + depth == 5


def test_a_fill_makes_no_token_and_ends_with_its_prompt() -> None:
    driver = Driver(make_spec(rules="parrot"))
    driver.start(request("f", [("p", 160)], 0, is_fill=True))
    driver.run()
    driver.start(request("a", [("p", 160), ("a", 170)], objective=group("g")), at_s=9.0)
    driver.run()
    assert driver.end_s("f") == pytest.approx(0.01 + 160e-4)
    assert driver.finished["a"].cached_tokens == 160
