"""Calls from the client's side."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from parrot_backend.vllm_plugin.hints import RequestClass
from parrot_backend.vllm_plugin.options import PluginOptions
from tests.vllm_plugin.fake_core import FakeCore, text


def test_an_unknown_call_is_refused() -> None:
    with pytest.raises(ValueError, match="'explode'"):
        FakeCore().call("explode")


def test_an_unknown_order_is_refused_and_those_before_it_count() -> None:
    core = FakeCore()
    request = core.add(text(0, 9), {"name": "a"})
    with pytest.raises(ValueError, match="'explode'"):
        core.apply(["hints", "a", {"class": "latency"}], ["explode"], ["hints", "a", {}])
    assert request.request_class is RequestClass.LATENCY


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("apply", []),
        ("apply", [[["hints"]]]),
        ("apply", [[["hints", "a"]]]),
        ("apply", [[["retain", "k"]]]),
        ("apply", [[["retain", [], None]]]),
        ("apply", [[["retain", [], "ended"]]]),
        ("apply", [[["release", {}]]]),
        ("apply", [[[]]]),
        ("configure", []),
        ("configure", [{"order": 5}]),
        ("configure", [{"orders": True}]),
        ("state", [1]),
    ],
)
def test_bad_arguments_fail_that_call_alone(name: str, arguments: list[Any]) -> None:
    core = FakeCore()
    core.add(text(1, 20), {"name": "ended"})
    core.drain()
    request = core.add(text(0, 9), {"name": "a", "prefixes": [["k", 8]], "retain": ["k"]})
    before = core.call("state")
    with pytest.raises((ValueError, TypeError, IndexError)):
        core.call(name, *arguments)
    assert core.call("state") == before
    assert core.policy.options == PluginOptions(splice=True)
    core.drain()
    core.check()
    assert request.is_complete


def test_orders_of_nothing_known_are_ignored() -> None:
    core = FakeCore()
    core.apply(["hints", "a", {"class": "latency"}], ["retain", "k", None], ["retain", "k", "a"])
    core.apply(["release", "k"], ["hints", "a", "no dict"])
    assert core.call("state") == FakeCore().call("state")
    assert core.policy.is_idle


def test_configure_returns_all_options() -> None:
    core = FakeCore(PluginOptions(slowdown=3.0))
    expected = asdict(PluginOptions(slowdown=3.0, order=False, splice=True))
    assert core.call("configure", {"order": False}) == expected
    assert core.policy.options == PluginOptions(slowdown=3.0, order=False, splice=True)
    assert core.call("configure", {}) == expected


@pytest.mark.parametrize("changes", [{"order": False}, {"max_wait_s": 0.5}, {"gang": False}])
def test_configure_keeps_all_that_wait(changes: dict[str, Any]) -> None:
    core = FakeCore(slots=2)
    requests = [
        core.add(text(n, 9), None if n % 4 == 3 else {"class": "latency", "group": str(n % 3)})
        for n in range(9)
    ]
    core.step()
    num_waiting = core.call("state")["waiting"]
    assert num_waiting > 3
    core.call("configure", changes)
    assert core.call("state")["waiting"] == num_waiting
    core.check()
    core.drain()
    assert all(request.is_complete for request in requests)


def test_order_can_be_switched_off_and_on() -> None:
    core = FakeCore(slots=1)
    core.add(text(0, 9), {"class": "latency"}, max_tokens=1)
    late = core.add(text(1, 9), {"class": "throughput"}, max_tokens=1, age_s=1.0)
    urgent = core.add(text(2, 9), {"class": "throughput", "name": "a"}, max_tokens=1)
    core.call("configure", {"order": False})
    core.apply(["hints", "a", {"class": "latency"}])
    assert next(iter(core.policy.waiting)) is late
    core.call("configure", {"order": True})
    assert list(core.policy.waiting)[-1] is late
    core.drain()
    assert urgent.begun_s is not None
    assert late.begun_s is not None
    assert urgent.begun_s < late.begun_s


def test_configure_gives_back_all_pins() -> None:
    core = FakeCore()
    core.add(text(0, 40), {"prefixes": [["k", 40]], "retain": ["k"]})
    core.drain()
    assert core.call("state")["pinned_tokens"] == 40
    core.call("configure", {"pin": False})
    assert core.call("state")["pinned_tokens"] == 0
    core.check()
    core.apply(["retain", "k", None])
    assert core.call("state")["pinned_tokens"] == 0
    core.call("configure", {"pin": True})
    core.apply(["retain", "k", None])
    assert core.call("state")["pinned_tokens"] == 40
    core.check()


def test_state_and_reports_are_plain_data() -> None:
    core = FakeCore(is_trained=True)
    core.add(text(0, 40), {"prefixes": [["k", 40]], "retain": ["k"], "name": "a"})
    core.drain()
    for answer in (core.call("state"), core.ask(-1).result(0)):
        assert json.loads(json.dumps(answer))["step_time"]["num_samples"] > 0
