"""Prefixes inside the engine: what is kept, what is held, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.vllm_plugin.options import PluginOptions
from tests.core.hypothesis_settings import examples
from tests.vllm_plugin.fake_core import BLOCK, FakeCore, FakeRequest, text

SHARED = text(700, 40)


def prefix(key: str = "k", tokens: int = 40, *, retain: bool = True) -> dict[str, Any]:
    return {"prefixes": [[key, tokens]], "retain": [key] if retain else []}


def serve(core: FakeCore, prompt: tuple[int, ...], hints: object = None) -> FakeRequest:
    """Return a request that has ended."""
    request = core.add(prompt, hints)
    core.drain()
    core.check()
    return request


def load(core: FakeCore, num_requests: int = 60) -> None:
    """Let requests come by that together need more than all blocks, some with hints."""
    for number in range(num_requests):
        core.add(text(number, 40), [None, {"class": "latency"}, {}][number % 3])
        core.step()
    core.drain()
    core.check()


def pinned(core: FakeCore) -> int:
    number: int = core.call("state")["pinned_tokens"]
    return number


# --- keeping --------------------------------------------------------------------------------------


def test_a_retained_prefix_outlives_unrelated_load() -> None:
    core = FakeCore(num_blocks=60)
    serve(core, (*SHARED, 1, 2), prefix())
    load(core)
    assert serve(core, (*SHARED, 3, 4), prefix(retain=False)).cached_tokens == len(SHARED)
    state = core.call("state")
    assert (state["hit_tokens"], state["pinned_hit_tokens"]) == (40, 40)
    assert state["lost_pins"] == 0


@pytest.mark.parametrize(
    ("options", "hints"),
    [
        (PluginOptions(), prefix(retain=False)),
        (PluginOptions(), {"class": "latency"}),
        (PluginOptions(), None),
        (PluginOptions(pin=False), prefix()),
        (PluginOptions(max_pinned_share=0.0), prefix()),
        (PluginOptions(pin_ttl_s=0.0), prefix()),
    ],
)
def test_any_other_prefix_does_not(options: PluginOptions, hints: object) -> None:
    core = FakeCore(options, num_blocks=60)
    serve(core, (*SHARED, 1, 2), hints)
    load(core)
    assert serve(core, (*SHARED, 3, 4), prefix(retain=False)).cached_tokens == 0
    assert pinned(core) == 0


def test_a_prefix_can_be_retained_before_it_is_computed_and_after() -> None:
    core = FakeCore(num_blocks=60)
    serve(core, (*SHARED, 1), prefix(retain=False))
    assert pinned(core) == 0
    core.apply(["retain", "k", None])
    assert pinned(core) == 40
    core.apply(["retain", "k", None], ["release", "k"], ["release", "k"])
    assert pinned(core) == 0
    core.check()


def test_a_key_that_nobody_knows_is_kept_by_nobody() -> None:
    core = FakeCore()
    core.apply(["retain", "k", None], ["retain", "k", "name"], ["release", "other"])
    assert pinned(core) == 0
    assert core.num_watches == 0


@pytest.mark.parametrize("output_tokens", [1, 3, 4, 5, 9])
def test_prompt_and_output_of_an_ended_request_are_kept_by_its_name(output_tokens: int) -> None:
    core = FakeCore(num_blocks=60)
    core.add(SHARED, {"name": "a"}, max_tokens=output_tokens)
    core.drain()
    core.apply(["retain", "next", "a"])
    num_known = (len(SHARED) + output_tokens - 1) // BLOCK * BLOCK
    assert pinned(core) == num_known
    assert core.ask(-1).result(0)["held"] == [("next", num_known)]
    load(core)
    ended = core.add(SHARED, {}, max_tokens=output_tokens)
    core.drain()
    again = serve(core, (*ended.tokens, 1), prefix("next", num_known))
    assert again.cached_tokens == num_known


def test_the_last_token_is_not_kept_though_it_counts_as_computed() -> None:
    core = FakeCore()
    core.overlaps = True
    request = core.add(SHARED, {"name": "a"}, max_tokens=BLOCK)
    core.drain()
    assert request.num_tokens % BLOCK == 0
    core.apply(["retain", "next", "a"])
    assert pinned(core) == 40
    assert core.ask(-1).result(0)["held"] == [("next", 40)]


def test_what_was_aborted_is_not_kept_by_its_name() -> None:
    core = FakeCore()
    request = core.add(SHARED, {"name": "a"}, max_tokens=20)
    core.run(3)
    core.abort(request)
    core.apply(["retain", "next", "a"])
    assert pinned(core) == 0


def test_an_engine_that_cannot_keep_prefixes_is_not_watched() -> None:
    core = FakeCore()
    core.can_keep_prefixes = False
    serve(core, (*SHARED, 1), {**prefix(), "name": "a"})
    core.apply(["retain", "k", None], ["retain", "next", "a"])
    assert core.num_watches == 0
    assert pinned(core) == 0
    assert core.policy.is_idle


def test_blocks_are_watched_from_the_first_prefix_on() -> None:
    core = FakeCore()
    serve(core, (*SHARED, 1))
    serve(core, (*SHARED, 2), {"class": "latency", "name": "a"})
    assert core.num_watches == 0
    core.add((*SHARED, 3), prefix())
    assert core.num_watches == 1
    assert pinned(core) == 40, "it was cached before anybody spoke of it"
    core.drain()
    serve(core, (*SHARED, 4), prefix())
    assert core.num_watches == 1


def test_what_a_preempted_request_computed_itself_is_no_hit() -> None:
    core = FakeCore(slots=1)
    core.tells_resumed = True
    request = core.add(SHARED, {"class": "throughput"}, max_tokens=20)
    core.run(3)
    core.add(text(1, 9), {"class": "latency"})
    core.drain()
    assert request.num_preemptions == 1
    assert core.call("state")["hit_tokens"] == 0


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_no_more_than_the_share_is_pinned(share: float) -> None:
    core = FakeCore(PluginOptions(max_pinned_share=share), num_blocks=100)
    most = 0
    for number in range(14):
        serve(core, text(number, 41), prefix(f"k{number}"))
        most = max(most, pinned(core) // BLOCK)
        assert most <= share * 100
    assert most >= share * 100 - 10
    load(core, 20)


def test_a_pin_that_nobody_renews_ends() -> None:
    core = FakeCore(PluginOptions(pin_ttl_s=5.0))
    serve(core, (*SHARED, 1), prefix())
    core.now_s += 4.0
    serve(core, (*SHARED, 2), prefix(retain=False))
    core.now_s += 4.0
    serve(core, text(1, 9), {})
    assert pinned(core) == 40, "it was used in between"
    core.now_s += 4.0
    serve(core, text(2, 9))
    assert pinned(core) == 0
    core.check()


def test_a_pin_that_ends_is_counted_at_once() -> None:
    core = FakeCore(PluginOptions(pin_ttl_s=5.0))
    serve(core, (*SHARED, 1), prefix())
    core.now_s += 9.0
    core.add(text(1, 3), {})
    core.policy.before_step(core.now_s)
    assert pinned(core) == 0
    assert core.call("state")["lost_pins"] == 1


def test_a_pin_that_gives_way_is_counted_at_once() -> None:
    core = FakeCore(num_blocks=20)
    serve(core, SHARED, prefix())
    core.add(text(1, 60), {})
    core.policy.before_step(core.now_s)
    assert pinned(core) == 0
    assert core.call("state")["lost_pins"] == 1


def test_a_running_request_can_be_told_to_keep_its_prefix() -> None:
    core = FakeCore()
    core.add((*SHARED, 1), {"name": "a"}, max_tokens=10)
    core.run(2)
    core.apply(["hints", "a", prefix()])
    core.drain()
    assert pinned(core) == 40


def test_leases_share_blocks() -> None:
    core = FakeCore()
    both = {"prefixes": [["short", 20], ["long", 40]], "retain": ["short", "long"]}
    serve(core, (*SHARED, 1), both)
    assert pinned(core) == 40
    core.apply(["release", "long"])
    assert pinned(core) == 20
    core.apply(["release", "short"])
    assert pinned(core) == 0
    core.check()


# --- the cache is reset ---------------------------------------------------------------------------


def test_a_reset_gives_back_all_pins() -> None:
    core = FakeCore()
    serve(core, (*SHARED, 1), prefix())
    number = core.ask(-1).result(0)["number"]
    assert core.reset_prefix_cache()
    core.check()
    assert pinned(core) == 0
    serve(core, text(1, 9), {})
    assert core.ask(number).result(0)["lost"] == ["k"]
    serve(core, (*SHARED, 2), prefix())
    assert pinned(core) == 40


# --- nothing is left behind -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["release", "expire", "reset"])
def test_after_an_abort_storm_nothing_is_left(how: str) -> None:
    core = FakeCore(PluginOptions(pin_ttl_s=5.0), num_blocks=60)
    for number in range(40):
        hints = {**prefix(f"k{number % 7}"), "name": f"n{number}", "group": str(number % 3)}
        core.add((*text(number % 7, 40), *text(50 + number, 20)), hints)
        core.step()
        if number % 10 == 9:
            for request in list(core.unfinished):
                core.abort(request)
            core.check()
    if how == "release":
        core.apply(*(["release", f"k{number}"] for number in range(7)))
    elif how == "expire":
        core.now_s += 9.0
        core.step()
    else:
        assert core.reset_prefix_cache()
        core.step()
    core.check()
    state = core.call("state")
    assert {state[name] for name in ("alive", "named", "waiting", "pinned_tokens")} == {0}
    assert state["free_blocks"] == state["num_blocks"]
    core.ask(-1)
    assert core.policy.is_idle


def test_aborted_requests_are_not_shown_as_held() -> None:
    core = FakeCore(PluginOptions(slowdown=1.0), is_trained=True)
    core.add(text(0, 9), {"class": "throughput"}, max_tokens=90)
    core.run(2)
    core.add(text(1, 9), {"class": "latency"}, max_tokens=20)
    core.run(3)
    for request in list(core.unfinished):
        core.abort(request)
    core.step()
    assert core.call("state")["held"] == 0


# --- reports --------------------------------------------------------------------------------------


def test_a_report_comes_when_a_prefix_is_held_and_when_it_is_lost() -> None:
    core = FakeCore(num_blocks=30)
    number = core.ask(-1).result(0)["number"]
    asked = core.ask(number)
    core.add((*SHARED, 1), prefix(retain=False))
    assert not asked.done()
    core.drain()
    assert asked.result(0)["held"] == [("k", 40)]
    assert core.policy.is_idle
    asked = core.ask(number + 1)
    assert not asked.done()
    load(core, 4)
    assert asked.result(0)["lost"] == ["k"]
    assert core.policy.is_idle


def test_only_what_came_of_it_is_told() -> None:
    core = FakeCore(num_blocks=30)
    number = core.ask(-1).result(0)["number"]
    for told in ({"held": [], "lost": ["k"]}, {"held": [("k", 40)], "lost": []}):
        if told["held"]:
            load(core, 4)
        serve(core, (*SHARED, 1), prefix(retain=False))
        if told["lost"]:
            load(core, 4)
        report = core.ask(number).result(0)
        assert {name: report[name] for name in ("held", "lost")} == told
        number = report["number"]


class Client:
    """Follows the reports, as the other side does; some of them get lost."""

    def __init__(self, core: FakeCore) -> None:
        self.held: dict[str, int] = {}
        self._core = core
        self._number = -1
        self._asked = core.ask(-1)
        self.take()

    def take(self) -> None:
        """Take in all reports that are there."""
        while self._asked.done():
            report = self._asked.result()
            if report["is_snapshot"]:
                self.held = {}
            self.held |= dict(report["held"])
            assert not dict(report["held"]).keys() & set(report["lost"])
            for key in report["lost"]:
                self.held.pop(key, None)
            self._number = report["number"]
            self._asked = self._core.ask(self._number)

    def lose(self) -> None:
        """Miss a report, if there is one, or else give up and ask again."""
        self._asked = self._core.ask(self._number)


@examples(150, shrinks=False)
@given(st.data(), st.integers(20, 60), st.sampled_from([0.0, 0.5]))
def test_reports_equal_the_truth(data: st.DataObject, num_blocks: int, share: float) -> None:
    core = FakeCore(PluginOptions(max_pinned_share=share, pin_ttl_s=1.0), num_blocks=num_blocks)
    client = Client(core)
    known: dict[str, tuple[bytes, int]] = {}
    kinds = ["add"] * 4 + ["plain", "abort", "reset", "lose", "retain", "release", "wait"]
    for _ in range(data.draw(st.integers(1, 50))):
        kind = data.draw(st.sampled_from(kinds))
        shared = data.draw(st.integers(1, 6))
        key, size = f"k{shared}", 6 * shared
        prompt = (*text(shared, size), *text(data.draw(st.integers(50, 55)), 5 * shared))
        if kind in ("add", "plain"):
            hints = None if kind == "plain" else prefix(key, size, retain=data.draw(st.booleans()))
            request = core.add(prompt, hints, max_tokens=data.draw(st.integers(1, 5)))
            if hints is not None:
                num_full = size // BLOCK
                known[key] = (request.block_hashes[num_full - 1], num_full * BLOCK)
        elif kind == "abort" and core.unfinished:
            core.abort(next(iter(core.unfinished)))
        elif kind == "reset":
            core.reset_prefix_cache()
        elif kind == "lose":
            client.lose()
        elif kind in ("retain", "release"):
            core.apply([kind, key, None])
        elif kind == "wait":
            core.now_s += 0.5
        core.step()
        core.check()
        core.policy.reports.flush(core.now_s, is_urgent=True)
        client.take()
        truth = {k: n for k, (last, n) in known.items() if core.pool.cached_block(last)}
        assert client.held == truth
    core.drain()
    assert not core.policy.keeper.has_changes
