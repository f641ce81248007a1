"""Reading hints: good fields count, bad ones are reported, and nothing raises."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.vllm_plugin.hints import (
    Hints,
    PrefixHint,
    RequestClass,
    changed_hints,
    parse_hints,
)
from tests.core.hypothesis_settings import examples

NOW_S = 100.0
FULL = {
    "class": "task_group",
    "name": "s.1",
    "slack_s": 2.5,
    "tpot_s": 0.05,
    "group": "s.g",
    "path_length": 3,
    "prefix_group": "p",
    "tenant": "t",
    "prefixes": [["a", 10], ["b", 20]],
    "retain": ["b"],
    "after": "s.0",
    "gap_at": 7,
}
FULL_HINTS = Hints(
    request_class=RequestClass.TASK_GROUP,
    name="s.1",
    deadline_s=102.5,
    tpot_s=0.05,
    group="s.g",
    path_length=3,
    prefix_group="p",
    tenant="t",
    prefixes=(PrefixHint("a", 10), PrefixHint("b", 20)),
    retain=frozenset({"b"}),
    after="s.0",
    gap_at=7,
)


def parsed(raw: object) -> Hints:
    """Return the hints of a raw value without problems."""
    hints, problems = parse_hints(raw, NOW_S)
    assert problems == ()
    assert hints is not None
    return hints


# --- what is sound ---------------------------------------------------------------------------


def test_request_without_hints() -> None:
    assert parse_hints(None, NOW_S) == (None, ())


def test_empty_dict_gives_the_defaults() -> None:
    assert parsed({}) == Hints()


def test_every_field_is_read() -> None:
    assert parsed(FULL) == FULL_HINTS


def test_hints_may_come_as_json() -> None:
    assert parsed(json.dumps(FULL)) == FULL_HINTS
    assert parsed(" {} ") == Hints()
    assert parse_hints("null", NOW_S) == (None, ())


@pytest.mark.parametrize(
    ("word", "request_class"),
    [
        ("latency", RequestClass.LATENCY),
        ("task_group", RequestClass.TASK_GROUP),
        ("throughput", RequestClass.THROUGHPUT),
        ("fill", RequestClass.FILL),
    ],
)
def test_class_is_read(word: str, request_class: RequestClass) -> None:
    assert parsed({"class": word}).request_class is request_class


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"slack_s": -3}, Hints(deadline_s=97.0)),
        ({"slack_s": 0}, Hints(deadline_s=100.0)),
        ({"tpot_s": 0}, Hints(tpot_s=0.0)),
        ({"tpot_s": 1}, Hints(tpot_s=1.0)),
        ({"class": "task_group"}, Hints(RequestClass.TASK_GROUP)),
        ({"class": "latency", "group": "g"}, Hints(RequestClass.LATENCY, group="g")),
        ({"tenant": "x" * 256}, Hints(tenant="x" * 256)),
        ({"prefixes": (("a", 5), ("b", 5))}, Hints(prefixes=tuple(map(PrefixHint, "ab", (5, 5))))),
        ({"prefixes": [["a", 1]] * 1024}, Hints(prefixes=(PrefixHint("a", 1),) * 1024)),
        ({"slack_s": None, "tpot_s": None, "group": None, "prefix_group": None}, Hints()),
    ],
)
def test_unusual_but_sound_fields(raw: object, expected: Hints) -> None:
    assert parsed(raw) == expected


# --- what is malformed -----------------------------------------------------------------------

BAD_FIELDS: list[tuple[str, object]] = [
    ("class", "LATENCY"),
    ("class", None),
    ("class", 0),
    ("class", []),
    ("name", 7),
    ("name", None),
    ("name", "x" * 1025),
    ("name", b"bytes"),
    ("slack_s", "1"),
    ("slack_s", True),
    ("slack_s", math.nan),
    ("slack_s", math.inf),
    ("slack_s", -math.inf),
    ("slack_s", 10**400),
    ("tpot_s", -0.001),
    ("tpot_s", math.nan),
    ("tpot_s", False),
    ("tpot_s", []),
    ("group", 1),
    ("group", "x" * 1025),
    ("path_length", -1),
    ("path_length", 1.0),
    ("path_length", True),
    ("path_length", None),
    ("prefix_group", {}),
    ("tenant", None),
    ("prefixes", None),
    ("prefixes", "ab"),
    ("prefixes", {"a": 1}),
    ("prefixes", ["ab"]),
    ("prefixes", [["a"]]),
    ("prefixes", [["a", 1, 2]]),
    ("prefixes", [["a", 0]]),
    ("prefixes", [["a", -1]]),
    ("prefixes", [["a", True]]),
    ("prefixes", [["a", 1.0]]),
    ("prefixes", [["x" * 1025, 1]]),
    ("prefixes", [["a", 5], ["b", 4]]),
    ("prefixes", [["a", 1]] * 1025),
    ("retain", "a"),
    ("retain", [1]),
    ("retain", [["a"]]),
    ("retain", ["stray"]),
    ("retain", ["a"] * 1025),
    ("after", 1),
    ("after", "x" * 1025),
    ("gap_at", -1),
    ("gap_at", None),
    ("gap_at", 1.0),
    # What a report could not tell.
    ("prefixes", [["a\ud800", 1]]),
    ("tenant", "\udfff"),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_malformed_field_is_ignored_and_named_once(field: str, value: object) -> None:
    name = "tenant" if field == "name" else "name"
    hints, problems = parse_hints({field: value, name: "good"}, NOW_S)
    assert hints == parsed({name: "good"})
    (problem,) = problems
    assert problem.startswith(f"{field}: expected ")


@pytest.mark.parametrize(
    "raw",
    [
        *("latency", 1, [], b"", True, object()),
        *("", "{", "[]", "1", '"{}"', "{'class': 'latency'}", b"{}"),
        *("[" * 60_000, "9" * 5000, "{}" + " " * 2**16, '{"tenant": "\\ud8"}'),
    ],
    ids=lambda raw: repr(raw)[:20],
)
def test_hints_that_are_no_dict(raw: object) -> None:
    hints, problems = parse_hints(raw, NOW_S)
    assert hints is None
    assert len(problems) == 1
    assert len(problems[0]) <= 200


def test_every_malformed_field_is_one_problem() -> None:
    raw = {"class": 1, "slack_s": "soon", "tpot_s": -1, "tenant": "t"}
    hints, problems = parse_hints(raw, NOW_S)
    assert hints == Hints(tenant="t")
    assert {problem.partition(":")[0] for problem in problems} == {"class", "slack_s", "tpot_s"}
    assert len(problems) == 3


def test_unknown_field_is_ignored_and_named() -> None:
    assert parse_hints({"klass": "latency"}, NOW_S) == (Hints(), ("'klass': unknown field",))


def test_many_unknown_fields_do_not_flood_the_report() -> None:
    _, problems = parse_hints({f"f{i}": i for i in range(1000)}, NOW_S)
    assert len(problems) == 8


def test_good_keys_are_retained_next_to_a_stray_one() -> None:
    hints, problems = parse_hints({"prefixes": [["a", 1]], "retain": ["a", "b"]}, NOW_S)
    assert hints is not None
    assert hints.retain == {"a"}
    assert problems == ("retain: expected keys of prefixes, got 'b'",)


def test_nothing_is_retained_of_malformed_prefixes() -> None:
    hints, problems = parse_hints({"prefixes": 1, "retain": ["a"]}, NOW_S)
    assert hints == Hints()
    assert len(problems) == 2


@pytest.mark.parametrize(
    "raw",
    [
        {"class": "secret" * 1000},
        {"x" * 10_000: 1},
        {"tpot_s": "\U0001f600" * 1000},
        {"retain": ["\0" * 256]},
        {"path_length": -(10**5000)},
        "secret" * 1000,
    ],
)
def test_long_text_is_not_echoed(raw: object) -> None:
    _, (problem,) = parse_hints(raw, NOW_S)
    assert len(problem) <= 80 + 70
    assert problem.isprintable()


# --- changes ---------------------------------------------------------------------------------


def test_only_given_fields_are_replaced() -> None:
    change = {"class": "latency", "path_length": 9}
    assert changed_hints(FULL_HINTS, change, NOW_S) == (
        parsed({**FULL, "class": "latency", "path_length": 9}),
        (),
    )


@pytest.mark.parametrize("raw", [{}, None])
def test_empty_change_changes_nothing(raw: object) -> None:
    assert changed_hints(FULL_HINTS, raw, 500.0) == (FULL_HINTS, ())


def test_new_slack_counts_from_the_change() -> None:
    hints, _ = changed_hints(FULL_HINTS, {"slack_s": 1}, 500.0)
    assert hints is not None
    assert hints.deadline_s == 501.0


def test_none_removes() -> None:
    fields = ("slack_s", "tpot_s", "group", "prefix_group")
    hints, problems = changed_hints(FULL_HINTS, dict.fromkeys(fields), NOW_S)
    assert hints == parsed({k: v for k, v in FULL.items() if k not in fields})
    assert problems == ()


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_malformed_change_leaves_the_field(field: str, value: object) -> None:
    hints, problems = changed_hints(FULL_HINTS, {field: value}, NOW_S)
    expected = {**FULL, "retain": []} if value == ["stray"] else FULL
    assert hints == parsed(expected)
    assert len(problems) == 1


def test_change_that_is_no_dict_leaves_everything() -> None:
    hints, problems = changed_hints(FULL_HINTS, 5, NOW_S)
    assert hints == FULL_HINTS
    assert len(problems) == 1


def test_key_that_is_no_prefix_any_more_is_not_retained() -> None:
    hints, problems = changed_hints(FULL_HINTS, {"prefixes": [["a", 10]]}, NOW_S)
    assert hints == parsed({**FULL, "prefixes": [["a", 10]], "retain": []})
    assert problems == ("retain: expected keys of prefixes, got 'b'",)


# --- whatever comes --------------------------------------------------------------------------

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=8)
)
_KEYS = st.sampled_from([*FULL]) | st.text(max_size=5) | st.integers() | st.binary(max_size=4)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_RAW = _VALUES | st.dictionaries(_KEYS, _VALUES | st.sampled_from([*FULL.values()]), max_size=8)


@examples(300)
@given(_RAW)
def test_nothing_raises_and_what_is_read_is_sound(raw: object) -> None:
    hints, problems = parse_hints(raw, NOW_S)
    assert (hints is None) == (not isinstance(raw, dict))
    assert all(len(problem) <= 200 and problem.isprintable() for problem in problems)
    changed, _ = changed_hints(FULL_HINTS, raw, NOW_S)
    for result in filter(None, (hints, changed)):
        assert result.deadline_s is None or math.isfinite(result.deadline_s)
        assert result.tpot_s is None or 0 <= result.tpot_s < math.inf
        assert result.path_length >= 0
        tokens = [prefix.tokens for prefix in result.prefixes]
        assert tokens == sorted(tokens)
        assert result.retain <= {prefix.key for prefix in result.prefixes}


@examples(100)
@given(st.dictionaries(st.sampled_from([*FULL]), _VALUES))
def test_each_field_is_judged_alone(raw: dict[str, object]) -> None:
    hints, _ = parse_hints(raw, NOW_S)
    assert hints is not None
    for field in raw.keys() - {"retain", "prefixes"}:
        alone, _ = parse_hints({field: raw[field]}, NOW_S)
        attribute = {"class": "request_class", "slack_s": "deadline_s"}.get(field, field)
        assert getattr(hints, attribute) == getattr(alone, attribute)
