"""What can be set of the plug-in, and what is refused."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from types import MappingProxyType

import pytest

from parrot_backend.vllm_plugin.options import PluginOptions, read_options


@pytest.mark.parametrize("raw", [None, {}, MappingProxyType({})])
def test_what_is_missing_has_its_default(raw: object) -> None:
    assert read_options(raw) == PluginOptions()


def test_everything_can_be_set() -> None:
    changed = {
        name: not value if isinstance(value, bool) else value / 2
        for name, value in asdict(PluginOptions()).items()
    }
    options = read_options(changed)
    assert asdict(options) == changed
    assert all(getattr(options, f.name) != f.default for f in fields(PluginOptions))


def test_a_whole_number_becomes_seconds() -> None:
    assert isinstance(read_options({"max_wait_s": 5}).max_wait_s, float)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ([], "mapping"),
        ("order", "mapping"),
        (True, "mapping"),
        ({"ordering": True}, "ordering"),
        ({5: True}, "5"),
        ({"order": 1}, "order"),
        ({"pin": None}, "pin"),
        ({"pace": "true"}, "pace"),
        ({"max_wait_s": True}, "max_wait_s"),
        ({"max_wait_s": "5"}, "max_wait_s"),
        ({"max_wait_s": None}, "max_wait_s"),
        ({"pin_ttl_s": -0.1}, "pin_ttl_s"),
        ({"slowdown": math.nan}, "slowdown"),
        ({"max_pinned_share": 1.01}, "max_pinned_share"),
        ({"max_pinned_share": math.inf}, "max_pinned_share"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(raw: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_options(raw)


@pytest.mark.parametrize("share", [0, 0.0, 1, 1.0])
def test_the_bounds_of_the_pinned_share_are_allowed(share: float) -> None:
    assert read_options({"max_pinned_share": share}).max_pinned_share == share


def test_no_limit_can_be_set() -> None:
    assert read_options({"max_wait_s": math.inf}).max_wait_s == math.inf
